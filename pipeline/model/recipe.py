"""Data classes for a validated recipe: layers, accounts, files, image settings, smoke plan.

Made by `pipeline.recipes` from YAML; everything in it is already checked.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image_keys import ImageSettings
from pipeline.model.payload_limits import PayloadLimits
from pipeline.model.scriptlets import ScriptletRules
from pipeline.model.smoke import SmokePlan


class Without(StrEnum):
    """Contents that a layer leaves out."""

    DOCS = "docs"
    MAN = "man"
    WEAK_DEPENDENCIES = "weak-dependencies"


@dataclass(frozen=True, slots=True)
class Request:
    """One line under `packages`.

    A name, a provide, a file path, `name-version[-release]`, a rich dependency, or a comparison such as `openssl >= 3`.
    `place` is its `file:line`.
    """

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class LocalPackage:
    """A package by path (relative to the recipe that names it) and sha256: a hotfix."""

    path: Path
    sha256: Digest
    place: str


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer of packages, lowest first in the recipe.

    `docs`/`man`: whether they are installed. `at_most`: its packages are grouped into up to so many layers of the image
    (None: it is one). `brought_by` is the included recipe that such a layer comes from.
    """

    name: str
    requests: tuple[Request, ...]
    local: tuple[LocalPackage, ...] = ()
    docs: bool = True
    man: bool = True
    at_most: int | None = None
    brought_by: Path | None = None


@dataclass(frozen=True, slots=True)
class User:
    """An account. `gid` None: the same number as the uid, in a group of the same name."""

    name: str
    uid: int
    gid: int | None = None
    home: str = "/"
    shell: str = "/sbin/nologin"
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A group with its number."""

    name: str
    gid: int


class FileKind(StrEnum):
    """Kinds of sources that a recipe's file is made from."""

    TEMPLATE = "template"
    CONTENT = "content"
    SOURCE = "source"
    URL = "url"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One file that the recipe puts into the image.

    `origin` is, by `kind`: the template's name, the literal content, a path beside the recipe, a URL, empty, the link's
    target, or a path or URL of an archive. `mode` is the permission bits; None for a symlink, and for an archive that
    says itself what is a program. `sha256` is demanded of URLs and archives. `strip` is how many leading components the
    names in an archive lose.
    """

    kind: FileKind
    path: str
    origin: str
    mode: int | None
    owner: str
    group: str
    place: str
    sha256: Digest | None = None
    strip: int = 0

    @property
    def is_beside(self) -> bool:
        """True if `origin` is a file in the recipe's folder."""
        return self.kind is FileKind.SOURCE or (self.kind is FileKind.ARCHIVE and "://" not in self.origin)


@dataclass(frozen=True, slots=True)
class ImagePlan(ImageSettings):
    """Settings that the image will have.

    Strings may hold `{{ packages[…] }}`. `given` are the keys that the recipe has, so that one that is empty can be
    told from one that is left to the parent image.
    """

    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A product, ready to be resolved.

    `path` is the recipe's file, `version` a template evaluated after the lock, `values` what templates see,
    `excludes` globs of packages that are never chosen, `pins` name → required version text, `sources` the recipe and
    all its includes, in order, `template_folders` the folders to search for templates, `parent` the recipe whose image
    this one is built from, `end_of_life` the last day (`2027-04-30`) on which the product is maintained, or "",
    `scriptlets` the rules for failing scriptlets, `payload_limits` what a package may unpack to. `package_names`
    are the names of packages that the chosen platform calls otherwise, `add_ons` the add-ons that it gets, and
    `platform_entries` the entries that fit it, the most general first, for each of `sources` with `platforms`.
    `remove_places` are the `file:line` of each path in `remove`.
    """

    name: str
    path: Path
    version: str
    platform: str
    architectures: tuple[str, ...]
    layers: tuple[LayerPlan, ...]
    users: tuple[User, ...] = ()
    groups: tuple[Group, ...] = ()
    files: tuple[FilePlan, ...] = ()
    remove: tuple[str, ...] = ()
    values: tuple[tuple[str, object], ...] = ()
    image: ImagePlan = ImagePlan()
    smoke: SmokePlan = SmokePlan()
    weak_dependencies: bool = False
    languages: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    pins: tuple[tuple[str, str], ...] = ()
    assume_installed: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    template_folders: tuple[Path, ...] = ()
    parent: Recipe | None = None
    end_of_life: str = ""
    scriptlets: ScriptletRules = ScriptletRules()
    payload_limits: PayloadLimits = PayloadLimits()
    package_names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    add_ons: tuple[str, ...] = ()
    platform_entries: tuple[tuple[Path, tuple[str, ...]], ...] = ()
    remove_places: tuple[str, ...] = ()
