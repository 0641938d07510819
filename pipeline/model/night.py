"""One night over a catalogue: what came of every product, and why. What the morning's page, the feeds and CI are made
from. Times are milliseconds since the epoch, durations milliseconds, sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.digest import Digest
from pipeline.model.enforcement import LimitEnforcement

NIGHT_FORMAT = 1


class Outcome(StrEnum):
    """What a night did about a product."""

    BUILT = "built"
    RETESTED = "retested"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    BLOCKED = "blocked"


class Stage(StrEnum):
    """Where a product failed."""

    RECIPE = "recipe"
    RESOLVE = "resolve"
    BUILD = "build"
    SMOKE = "smoke"
    PUBLISH = "publish"
    PARENT = "parent"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no new image. `code`, `message`, `place` and `hint` are those of the error, `log` the last lines of
    what was said (a scriptlet's or container's output among them), `command` what to type to see it again."""

    stage: Stage
    code: str
    message: str
    place: str = ""
    hint: str = ""
    log: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class PackageSize:
    """A package of the image: where it is, which source package it was built from, and how many bytes its files have.
    `evr` e.g. `1:3.0.7-2`."""

    name: str
    evr: str
    arch: str
    layer: str
    source: str
    size: int


@dataclass(frozen=True, slots=True)
class LayerSize:
    """A layer of the image, lowest first. `size` as it is downloaded, `tar_size` unpacked."""

    name: str
    digest: Digest
    size: int
    tar_size: int


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package that is another than last time. `before` and `after` are versions, "": it was not there, or is gone."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class CheckFigure:
    """What one check of one instance came to."""

    instance: str
    name: str
    passed: bool
    took: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the launched instances used at most: bytes of memory, microseconds of processor, processes; and how long
    until the first was ready. None where the kernel or the runtime does not tell."""

    peak_memory: int | None = None
    cpu_time: int | None = None
    peak_pids: int | None = None
    ready_after: int | None = None


@dataclass(frozen=True, slots=True)
class MissingFix:
    """A package in the image for which the repositories offer a security fix. `severity` is a word of updateinfo in
    lower case (`critical`, `important`, `moderate`, `low`, or "" where the advisory gives none), `issued` when the
    advisory came out (0: it has no date), `has` and `fixed_in` are versions, `kind` the advisory's type: where other
    fixes were asked for as well, `bugfix` and the like."""

    advisory: str
    severity: str
    title: str
    issued: int
    cves: tuple[str, ...]
    package: str
    has: str
    fixed_in: str
    repository: str
    kind: str = "security"


@dataclass(frozen=True, slots=True)
class FixTaken:
    """A security fix that came in with this build."""

    advisory: str
    severity: str
    title: str
    cves: tuple[str, ...]
    package: str
    version: str


@dataclass(frozen=True, slots=True)
class Attached:
    """A document that goes with the image: what it is (`SPDX`, `CycloneDX`, `provenance`, `smoke report`, …), the
    digest of the blob that holds it, and where that is below the mirror's root, "" if the mirror is a registry."""

    name: str
    digest: Digest
    media_type: str
    size: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Product:
    """What a night came to for one product on one platform and architecture.

    `name` is the recipe's, `recipe` its path as it was given. `why` says in words why it was built or not. `parent` is
    the product that it is built from, "" if none. `digest` is the image's that stands on the mirror now, None if there
    never was one; `tags` are those that point to it, `immutable` the one that always will. `began` and `took` are of
    this night; `steps` are (name, duration) in order. `built` is when the image that stands there was built, and
    `build_took` how long that took. `uploaded` bytes were sent, `moved` are the tags that were moved. `worker` is
    where it was made, "" on this machine. `end_of_life` is a date (`2027-04-30`), or "".

    `changes`, `fixes` and `previous` (the digest before) tell of the image that stands there against the one before it.
    `checks`, `resources` and `limits` (what the kernel held the instances to) are of the last test.
    """

    name: str
    recipe: str
    platform: str
    arch: str
    outcome: Outcome
    why: str
    description: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    version: str = ""
    digest: Digest | None = None
    previous: Digest | None = None
    tags: tuple[str, ...] = ()
    immutable: str = ""
    parent: str = ""
    began: int = 0
    took: int = 0
    built: int = 0
    build_took: int = 0
    steps: tuple[tuple[str, int], ...] = ()
    worker: str = ""
    uploaded: int = 0
    moved: tuple[str, ...] = ()
    packages: tuple[PackageSize, ...] = ()
    layers: tuple[LayerSize, ...] = ()
    changes: tuple[PackageChange, ...] = ()
    fixes: tuple[FixTaken, ...] = ()
    missing: tuple[MissingFix, ...] = ()
    checks: tuple[CheckFigure, ...] = ()
    resources: Resources = Resources()
    limits: tuple[LimitEnforcement, ...] = ()
    attached: tuple[Attached, ...] = ()
    end_of_life: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """What a repository offered: the digest of its repomd.xml, None if it could not be read, and then why.
    `advisories`: it tells of security fixes; of the packages of one that does not, nothing is known."""

    platform: str
    arch: str
    repository: str
    digest: Digest | None
    problem: str = ""
    advisories: bool = False


@dataclass(frozen=True, slots=True)
class SetAside:
    """A worker that was given no more tasks, and why in words."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class Night:
    """A whole night. `destination` is the mirror as people write it, `known_as` the `HOST/NAMESPACE` to pull from.
    `threshold` is the severity and age in days from which a missing fix fails the night (`important:7`), "" if none;
    `exceeded` says which did, in words. `key` is the public key that signatures are verified with, in PEM.
    `exit_code` is the process's. `set_aside` are workers that got no more tasks: their machines lack something, or
    they fell silent. `run` tells this night from every other, also from one that began
    at the same moment ("": nobody says)."""

    began: int
    ended: int
    catalogue: str
    destination: str
    known_as: str
    products: tuple[Product, ...]
    repositories: tuple[RepositoryState, ...] = ()
    threshold: str = ""
    exceeded: tuple[str, ...] = ()
    key: str = ""
    exit_code: int = 0
    relbuild: str = ""
    set_aside: tuple[SetAside, ...] = ()
    run: str = ""
    format: int = NIGHT_FORMAT

    def count(self, outcome: Outcome) -> int:
        """How many products came to that."""
        return sum(product.outcome is outcome for product in self.products)
