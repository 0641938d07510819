"""Data classes for a build's options, environment, and its lazily opened repositories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline import oci, recipes, repos, resolve, sandbox
from pipeline.compression import Compression
from pipeline.errors import EnvironmentLacking, RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.lock import LockMode
from pipeline.progress import Progress
from pipeline.store import Store

if TYPE_CHECKING:  # publishing and verifying need an environment, and neither platforms nor recipes
    from pipeline.model.image import Image
    from pipeline.model.platform import Platform
    from pipeline.model.recipe import Recipe


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """A recipe and the options of its build.

    `repositories` is the file that defines platforms; `platform` and `architectures` override the recipe's; `output` is
    where layout and report go; `full`: also run the long tests; `sources`: also fetch the source packages; `locks` is
    a folder for the locks, by the recipes' names, if they are not kept beside the recipes. `member`: it is built for
    one of several architectures, and its image becomes a member of an index.
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
    member: bool = False

    @property
    def target(self) -> recipes.PlatformTarget:
        """The platform that recipes are loaded for."""
        return recipes.PlatformTarget(self.repositories, self.platform)

    def layout(self, name: str) -> Path:
        """Return the path of the layout of the image `name`.

        It is NAME, or NAME.ARCH for a member of an index.
        """
        return self.output / (f"{name}.{self.architectures[0]}" if self.member else name)

    def lock_file(self, recipe: Recipe) -> Path:
        """Return the path at which the lock of `recipe` is read and written."""
        return self.locks / f"{recipe.name}.lock" if self.locks else resolve.lock_path(self.recipe)

    def lock_file_at(self, path: Path) -> Path:
        """Return the path at which the lock of a recipe is read that is included from `path`."""
        return self.locks / resolve.lock_path(path).name if self.locks else resolve.lock_path(path)


@dataclass(frozen=True, slots=True)
class BuildEnvironment:
    """The environment of a build: its store, its progress, and the process's settings.

    `clock` returns seconds since the epoch; `runtime` names an OCI runtime, None for the first that is installed.
    """

    store: Store
    progress: Progress
    environment: Mapping[str, str]
    clock: Callable[[], float]
    offline: bool = False
    runtime: str | None = None
    launcher: str | None = None

    def launching(self) -> sandbox.Launcher:
        """Return the launcher that was asked for, or that of relbuild's own sandbox.

        Raises as `sandboxes`, and as `sandbox.open_launcher`.
        """
        if self.launcher:
            given = (self.launcher, self.store.sandbox, self._export, self._push, self.environment)
            return sandbox.open_launcher(*given, tell=self.progress.warn)
        return sandbox.SandboxLauncher(self.sandboxes())

    def _export(self, image: Image, target: Path, form: Literal["layout", "archive"]) -> None:
        """Write an image from the store for a launcher to load."""
        if form == "layout":
            oci.write_layout(image, store=self.store, target=target)
            return
        with self.store.temporary("launcher") as folder:
            oci.write_layout(
                replace(image, reference=f"{target.name}:latest"), store=self.store, target=folder / "layout"
            )
            oci.write_archive(folder / "layout", target, "docker")

    def _push(self, image: Image, address: str) -> None:
        """Push an image from the store, without a tag, to the repository from which a cluster pulls."""
        # Here and not above: only a launcher that is a cluster needs mirrors.
        from pipeline.mirror.address_parser import parse_address
        from pipeline.mirror.mirror_access import MirrorAccess
        from pipeline.mirror.push import push_image

        access = MirrorAccess(self.environment, self.progress, self.clock, self.store)
        with access.repository(parse_address(address), create=True) as repository:
            push_image(image, (), repository, source=self.store.blob, elsewhere={}, progress=self.progress)

    def sandboxes(self) -> sandbox.SandboxRegistry:
        """Open the sandbox registry of the store, which first clears what killed processes left.

        Raises EnvironmentLacking `root-needed` where this process may not make containers.
        """
        obstacle = sandbox.container_obstacle()
        if obstacle:
            raise EnvironmentLacking(
                "root-needed",
                f"images cannot be launched here: {obstacle}",
                hint="run relbuild as root with a container's full rights, or as a user with subordinate IDs and user "
                "namespaces (`relbuild doctor` says what is missing); `relbuild build --no-smoke` works without",
            )
        runtime = sandbox.find_runtime(self.runtime)
        return sandbox.open_sandbox_registry(self.store.sandbox, runtime, self.progress.warn)

    def require_containers(self) -> None:
        """Raise EnvironmentLacking `root-needed` where an image could be built, but not tested.

        Raises as `sandbox.open_launcher` too, where a launcher was asked for.
        """
        if self.launcher:
            self.launching()
        elif not sandbox.may_make_containers():
            raise EnvironmentLacking(
                "root-needed",
                "images cannot be tested here: this process may not make containers",
                hint="build with --no-smoke, which needs no privileges, and test the image where relbuild is root or "
                "has subordinate IDs: `relbuild smoke RECIPE --output FOLDER`",
            )

    def script_sandboxes(self) -> sandbox.SandboxRegistry | None:
        """Open the sandbox registry for scriptlets; None where this process may make no containers.

        There, scriptlets are traced.
        """
        return self.sandboxes() if sandbox.may_make_containers() else None


@dataclass(slots=True)
class RepositoryCache:
    """A platform's repositories, opened when they are first needed.

    With a fresh lock and all packages in the store they are not needed.
    """

    platform: Platform
    arch: str
    build_env: BuildEnvironment
    _opened: tuple[repos.OpenRepository, ...] | None = None

    def repositories(self) -> tuple[repos.OpenRepository, ...]:
        """Return the open repositories."""
        if self._opened is None:
            self._opened = repos.open_repositories(
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
        """Return whether `error` occurred because the repositories changed since they were opened.

        They are opened again to find out, and stay open in the new state.
        """
        before = self._opened
        if before is None or self.build_env.offline or error.code not in repos.CHANGED_CODES:
            return False
        self._opened = None
        return repos.indexes_changed(before, self.repositories())
