"""The options of a build, the environment that it runs in, and its opened repositories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.compression import Compression
from pipeline.errors import RelbuildError
from pipeline.model.platform import Platform
from pipeline.model.recipe import Recipe
from pipeline.progress import Progress
from pipeline.repos import (
    CHANGED_CODES,
    OpenRepository,
    indexes_changed,
    open_repositories,
)
from pipeline.resolve import LockMode, lock_path
from pipeline.sandbox import SandboxRegistry, find_runtime, open_sandbox_registry
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """A recipe and the options of its build.

    `repositories` is the file that defines platforms; `platform` and `architectures` override the recipe's; `output` is
    where layout and report go; `full` tests also what takes long; `sources` fetches the source packages too; `locks` is
    a folder for the locks, by the recipes' names, where they are not to stand beside the recipes.
    """

    recipe: Path
    repositories: Path
    platform: str | None = None
    architectures: tuple[str, ...] = ()
    mode: LockMode = LockMode.DEFAULT
    smoke: bool = True
    retest: bool = False
    compression: Compression = Compression.GZIP
    output: Path = Path("output")
    full: bool = False
    sources: bool = False
    locks: Path | None = None

    def lock_file(self, recipe: Recipe) -> Path:
        """Return the path at which the lock of `recipe` is read and written."""
        return self.locks / f"{recipe.name}.lock" if self.locks else lock_path(self.recipe)

    def lock_file_at(self, path: Path) -> Path:
        """Return the path at which the lock of a recipe is read that is included from `path`."""
        return self.locks / lock_path(path).name if self.locks else lock_path(path)


@dataclass(frozen=True, slots=True)
class BuildEnvironment:
    """The environment of a build: its store, its progress, and the process's settings.

    `clock` gives seconds since the epoch; `runtime` names an OCI runtime, or None for the machine's.
    """

    store: Store
    progress: Progress
    environment: Mapping[str, str]
    clock: Callable[[], float]
    offline: bool = False
    runtime: str | None = None

    def sandboxes(self) -> SandboxRegistry:
        """Return the registry in which sandboxes are made.

        What a killed relbuild left there is removed first.
        """
        return open_sandbox_registry(self.store.sandbox, find_runtime(self.runtime))


@dataclass(slots=True)
class RepositoryCache:
    """The offer of a platform's repositories, opened when it is first asked for.

    A fresh lock needs none of it.
    """

    platform: Platform
    arch: str
    build_env: BuildEnvironment
    _opened: tuple[OpenRepository, ...] | None = None

    def repositories(self) -> tuple[OpenRepository, ...]:
        """The open repositories."""
        if self._opened is None:
            self._opened = open_repositories(
                self.platform,
                self.arch,
                variables=self.build_env.environment,
                store=self.build_env.store,
                offline=self.build_env.offline,
                progress=self.build_env.progress,
                clock=self.build_env.clock,
            )
        return self._opened

    def changed(self, error: RelbuildError) -> bool:
        """Tell whether the repositories changed under `error`.

        If they did, they are open as they are now.
        """
        before = self._opened
        if before is None or self.build_env.offline or error.code not in CHANGED_CODES:
            return False
        self._opened = None
        return indexes_changed(before, self.repositories())
