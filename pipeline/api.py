"""The Python API: the names of the module `relbuild` that a wheel installs. See docs/api.md.

Names here stay, with what they take and return; all else of `pipeline` may change with every release. The command line
does the same by the same functions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from pipeline.build import build_architectures, lock_architectures
from pipeline.errors import (
    BuildError,
    EnvironmentLacking,
    Problem,
    PublicationRefused,
    RecipeError,
    RelbuildError,
    ResolutionError,
    SmokeError,
    UsageError,
    VerificationError,
)
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address_parser import parse_mirror_address
from pipeline.model.lock import LockMode
from pipeline.oci import load_signing_key
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET, Progress
from pipeline.recipes import find_recipe
from pipeline.release import PublishOptions, rules_for
from pipeline.release import publish as publish_images
from pipeline.sandbox.rootless import enter_user_namespace
from pipeline.shipped import SHIPPED_RECIPES, locks_folder, platforms_file
from pipeline.store import Store, cache_folder, given_key, ignored_cache_warning
from pipeline.user_home import with_home

__all__ = [
    "BuildError",
    "BuiltProduct",
    "EnvironmentLacking",
    "LockMode",
    "LockedProduct",
    "Problem",
    "Progress",
    "PublicationRefused",
    "PublicationResult",
    "RecipeError",
    "RelbuildError",
    "ResolutionError",
    "Settings",
    "SmokeError",
    "UsageError",
    "VerificationError",
    "build",
    "enter_user_namespace",
    "publish",
    "resolve",
]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one use of relbuild, with the command line's defaults.

    `store` None: in the user's cache directory; `output`: where layouts and reports go; `offline`: no network;
    `runtime`: an OCI runtime, None for the first that is installed; `environment`: variables that platforms, keys and
    proxies are read from, None for the process's; `progress` is told what happens, from any thread.
    """

    store: Path | None = None
    output: Path = Path("output")
    offline: bool = False
    runtime: str | None = None
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    progress: Progress = QUIET


_DEFAULT = Settings()


@dataclass(frozen=True, slots=True)
class LockedProduct:
    """A recipe's packages for one architecture, by NEVRA, and its lock.

    `wrote`: the lock was written; `changes` are the differences from the former one, as text.
    """

    name: str
    architecture: str
    packages: tuple[str, ...]
    lock: Path
    wrote: bool
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuiltProduct:
    """An image of one architecture, in an OCI layout, with its report beside it.

    `digest` is the manifest's; `passed` None: it was not tested.
    """

    name: str
    version: str
    architecture: str
    digest: str
    layout: Path
    report: Path
    packages: tuple[str, ...]
    passed: bool | None


@dataclass(frozen=True, slots=True)
class PublicationResult:
    """A product on a mirror: repository, immutable tag, digest, and the tags that were moved."""

    repository: str
    tag: str
    digest: str
    moved: tuple[str, ...]


def resolve(
    recipe: str | Path,
    *,
    platform: str | None = None,
    architectures: Iterable[str] = (),
    repositories: Path | None = None,
    mode: LockMode = LockMode.DEFAULT,
    settings: Settings = _DEFAULT,
) -> tuple[LockedProduct, ...]:
    """Resolve a recipe, verify its packages and write its lock, for each architecture.

    `recipe` is a file, or a name in `recipes/`; `repositories` the file that defines platforms (default: beside it).
    Raises RelbuildError.
    """
    options = _options(
        recipe, repositories, platform=platform, architectures=architectures, mode=mode, smoke=False, settings=settings
    )
    return tuple(
        LockedProduct(
            name=locked.recipe.name,
            architecture=locked.section.resolution.arch,
            packages=tuple(str(one.package.nevra) for one in locked.all_chosen),
            lock=locked.path,
            wrote=locked.wrote,
            changes=locked.changes,
        )
        for locked in lock_architectures(options, _environment(settings))
    )


def build(
    recipe: str | Path,
    *,
    platform: str | None = None,
    architectures: Iterable[str] = (),
    repositories: Path | None = None,
    mode: LockMode = LockMode.DEFAULT,
    smoke: bool = True,
    settings: Settings = _DEFAULT,
) -> tuple[BuiltProduct, ...]:
    """Build a recipe's image for each architecture, launch it and test it.

    An image that did not pass its tests is returned, with `passed` False. As another user than root, call
    `enter_user_namespace` first. Parameters as for `resolve`. Raises RelbuildError.
    """
    options = _options(
        recipe, repositories, platform=platform, architectures=architectures, mode=mode, smoke=smoke, settings=settings
    )
    return tuple(
        BuiltProduct(
            name=built.image.name,
            version=built.image.reference,
            architecture=built.image.config.architecture,
            digest=str(built.image.digest),
            layout=built.layout,
            report=built.report_folder,
            packages=tuple(str(one.package.nevra) for one in built.locked.all_chosen),
            passed=built.report.passed if built.report is not None else None,
        )
        for built in build_architectures(options, _environment(settings)).members
    )


def publish(
    layouts: Sequence[Path],
    *,
    to: str,
    key: Path,
    password: str | None = None,
    tags: Iterable[str] | None = None,
    known_as: str = "",
    settings: Settings = _DEFAULT,
) -> tuple[PublicationResult, ...]:
    """Publish images that were built and passed their tests here, signed.

    `to` is a mirror (`registry://HOST/NAMESPACE`, `dir:PATH`), `known_as` the `HOST/NAMESPACE` by which clients pull
    from a new directory; `key` the file of the signing key; `tags` replace those of the version. The mirror's rules
    hold. Raises RelbuildError, PublicationRefused among them.
    """
    address = parse_mirror_address(to, "`to`")
    secret: Callable[[], bytes] | None = None if password is None else password.encode
    options = PublishOptions(
        layouts=tuple(layouts),
        to=address,
        key=load_signing_key(key, secret, progress=settings.progress),
        rules=rules_for(address, signs=True),
        tags=None if tags is None else tuple(tags),
        known_as=known_as,
    )
    return tuple(
        PublicationResult(
            repository=done.repository,
            tag=done.immutable,
            digest=str(done.digest),
            moved=tuple(move.tag for move in done.moved),
        )
        for done in publish_images(options, _environment(settings))
    )


def _options(
    recipe: str | Path,
    repositories: Path | None,
    *,
    platform: str | None,
    architectures: Iterable[str],
    mode: LockMode,
    smoke: bool,
    settings: Settings,
) -> BuildOptions:
    path = find_recipe(str(recipe), [Path("recipes"), *SHIPPED_RECIPES])
    return BuildOptions(
        path,
        repositories or platforms_file(path.parent),
        platform=platform,
        architectures=tuple(architectures),
        mode=mode,
        smoke=smoke,
        output=settings.output,
        locks=locks_folder(path),
    )


def _environment(settings: Settings) -> BuildEnvironment:
    environment = with_home(os.environ) if settings.environment is None else settings.environment
    if settings.store is None and (ignored := ignored_cache_warning(environment)):
        settings.progress.warn(ignored)
    folder = settings.store or cache_folder(environment) / "store"
    return BuildEnvironment(
        store=Store.open(folder, key=given_key(environment), tell=settings.progress.warn),
        progress=settings.progress,
        environment=environment,
        clock=time.time,
        offline=settings.offline,
        runtime=settings.runtime,
    )
