"""State of a platform's repositories in a night, read once and shared by its products."""

from __future__ import annotations

from pipeline.digest import Digest, canonical_json
from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import RepositoryState
from pipeline.model.platform import Platform
from pipeline.prepare import BuildEnvironment
from pipeline.repos import OpenRepository, RepositoryKey, load_keys, open_repositories
from pipeline.resolve import PackagePool, RepositoryAdvisories, open_pool


@dataclass(slots=True)
class PlatformState:
    """A platform's repositories for one architecture, or the error of reading them."""

    platform: Platform
    arch: str
    keys: tuple[RepositoryKey, ...] = ()
    repositories: tuple[OpenRepository, ...] = ()
    error: RelbuildError | None = None
    bulletin: RepositoryAdvisories | None = None
    _package_pool: PackagePool | None = None

    @property
    def digest(self) -> str:
        """The digest of all that the repositories offer."""
        return str(Digest.of(canonical_json([[one.repository.id, str(one.repomd)] for one in self.repositories])))

    @property
    def repository_states(self) -> tuple[RepositoryState, ...]:
        """The states of the repositories, as they offered them."""
        opened = {one.repository.id: one.repomd for one in self.repositories}
        problem = str(self.error) if self.error else ""
        return tuple(
            RepositoryState(
                self.platform.name,
                self.arch,
                one.id,
                opened.get(one.id),
                problem,
                advisories=self.bulletin is not None and one.id in self.bulletin.advisories.heard,
            )
            for one in self.platform.repositories
        )

    def read_keys(self, build_env: BuildEnvironment) -> None:
        """Read the keys of the platform's repositories. Raises RelbuildError."""
        self.keys = load_keys(
            self.platform,
            self.arch,
            variables=build_env.environment,
            store=build_env.store,
            offline=build_env.offline,
        )

    def open_repositories(self, build_env: BuildEnvironment) -> None:
        """Open the platform's repositories as they are now. Raises RelbuildError."""
        self.repositories = open_repositories(
            self.platform,
            self.arch,
            variables=build_env.environment,
            store=build_env.store,
            offline=build_env.offline,
            progress=build_env.progress,
            clock=build_env.clock,
        )

    def package_pool(self, build_env: BuildEnvironment) -> PackagePool:
        """Return the packages of all repositories, loaded when they are first needed."""
        if self._package_pool is None:
            self._package_pool = open_pool(
                self.arch, self.repositories, store=build_env.store, progress=build_env.progress
            )
        return self._package_pool
