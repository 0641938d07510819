"""Data classes for a build's materials and parameters, as in a provenance attestation."""

from __future__ import annotations

from enum import StrEnum

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.scriptlets import ToleratedFailure


class MaterialKind(StrEnum):
    """Kinds of materials of a build."""

    RECIPE = "recipe"
    """The recipe, or one that it includes."""
    LOCK = "lock"
    REPOSITORIES = "repositories"
    """The file that defines the repositories."""
    REPOMD = "repomd"
    """A repository's index, as it was when the lock was made."""
    KEY = "key"
    """A key that packages are trusted by."""
    PACKAGE = "package"
    TEMPLATE = "template"
    FILE = "file"
    """A static file of the recipe, or one that it names by URL."""
    PARENT = "parent"
    """The image that this one is built from."""
    IMAGE = "image"
    """One of the images that an index lists."""
    BUILDER = "builder"
    """relbuild's own code."""


@dataclass(frozen=True, slots=True)
class Material:
    """Something that went into a build, by digest.

    `name` is what people call it (a NEVRA, a path relative to the recipe's folder); `uri` is where it is from or what
    it is called everywhere (a PURL for a package, a URL without credentials), empty if it has no such name; `sha256` is
    of its bytes.
    """

    name: str
    uri: str
    sha256: Digest
    kind: MaterialKind


@dataclass(frozen=True, slots=True)
class AttestedBuild:
    """A build as its signed provenance describes it: who built, and from which recipe and lock.

    `signer` is the fingerprint of the key whose signature of it was verified. `builder` and `build_type` are URIs, and
    `versions` those of the builder's programs (`relbuild`: `1.2`). `recipe` and `lock` are None where the provenance
    names none, as that of an index has no lock. `started` and `finished` are RFC 3339 texts, empty where they are not
    said: relbuild says no times. All texts are as they were signed, and may be of any builder.
    """

    signer: Digest
    builder: str
    build_type: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    platform: str = ""
    architecture: str = ""
    recipe: Material | None = None
    lock: Material | None = None
    started: str = ""
    finished: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """The materials and parameters of one build.

    Two builds of the same inputs give equal provenances, unless times are given.

    `recipe` is the recipe's file; `materials` is everything else that decides on bytes: packages, repomd, included
    recipes, templates, files, keys, the lock, the parent, relbuild's own source. `options` are those that the person
    gave and that decide on bytes (`compression`: `zstd`, …). `versions` are those of the libraries that decide on bytes
    (`rpm`, `solv`, `zstandard`, …). `builder_version` is relbuild's. `invocation` is a deterministic name of the build
    (its identity), or empty. `started`, `finished`: seconds since the epoch, None if they are not said.
    `failed_scriptlets` are those that failed and that the recipe let through.
    """

    recipe: Material
    materials: tuple[Material, ...]
    platform: str
    architecture: str
    builder_version: str
    options: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    invocation: str = ""
    started: int | None = None
    finished: int | None = None
    failed_scriptlets: tuple[ToleratedFailure, ...] = ()
