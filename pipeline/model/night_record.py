"""Data classes for a nightly run: the outcome of each product, its reason and failure.

The morning's page, the feeds and CI are made from it. Times are milliseconds since the epoch, durations milliseconds,
sizes bytes.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import EMBEDDED
from pipeline.model.published_image import PublishedImage

NIGHT_FORMAT = 1


class Outcome(StrEnum):
    """Outcomes of a product in a nightly run."""

    BUILT = "built"
    RETESTED = "retested"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    BLOCKED = "blocked"


class Stage(StrEnum):
    """Stages in which a product fails."""

    RECIPE = "recipe"
    RESOLVE = "resolve"
    BUILD = "build"
    SMOKE = "smoke"
    PUBLISH = "publish"
    PARENT = "parent"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Failure:
    """The error because of which there is no new image.

    `code`, `message`, `place` and `hint` are those of the error, `log` lines of progress and output (of
    scriptlets and containers too), `command` the command that reproduces it. `cause` is the first line of a container's
    log that explains the failure, "" if none does.
    """

    stage: Stage
    code: str
    message: str
    place: str = ""
    hint: str = ""
    log: tuple[str, ...] = ()
    command: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class ProductRun:
    """The outcome of one run for a product, and nothing that outlives the run.

    `why` says in words why it was built or not. `steps` are (stage, milliseconds in which it was under way) in
    the order in which they began; stages may overlap. `uploaded` bytes were sent,
    `moved` are the tags that were moved. `worker` is where it was made, "" on this machine.
    """

    outcome: Outcome
    why: str
    began: int = 0
    took: int = 0
    steps: tuple[tuple[str, int], ...] = ()
    worker: str = ""
    uploaded: int = 0
    moved: tuple[str, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """The result of a nightly run for one product on one platform and architecture.

    What its recipe says (the fields that stand here), what the `run` did, and the `published` image that stands on the
    mirror now. In JSON all three are one object.

    `name` is the recipe's, `recipe` its path as it was given. `parent` is the product that it is built from, "" if
    none. `end_of_life` is a date (`2027-04-30`), or "". `arch` is rpm's name of its architecture, or of several,
    separated by commas: then the published image is an index.
    """

    name: str
    recipe: str
    platform: str
    arch: str
    run: ProductRun = field(metadata=EMBEDDED)
    published: PublishedImage = field(default_factory=PublishedImage, metadata=EMBEDDED)
    description: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    parent: str = ""
    end_of_life: str = ""

    @property
    def architectures(self) -> tuple[str, ...]:
        """rpm's names of its architectures, the first of which the figures are about."""
        return tuple(self.arch.split(","))


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """The state of a repository: the digest of its repomd.xml.

    `digest` is None if it could not be read, and `problem` then says why. `advisories`: it tells of security fixes; of
    the packages of one that does not, nothing is known.
    """

    platform: str
    arch: str
    repository: str
    digest: Digest | None
    problem: str = ""
    advisories: bool = False


@dataclass(frozen=True, slots=True)
class ExcludedWorker:
    """A worker that was given no more tasks, and why in words."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class NightlyRun:
    """A whole nightly run.

    `destination` is the mirror as people write it, `known_as` the `HOST/NAMESPACE` to pull from. `threshold` is the
    severity and age in days from which a missing fix fails the night (`important:7`), "" if none; `exceeded` says which
    did, in words. `key` is the public key that signatures are verified with, in PEM. `exit_code` is the process's.
    `set_aside` are workers that got no more tasks: their machines lack something, or they stopped responding. `run` is
    a unique id of this run ("": unknown).
    """

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
    set_aside: tuple[ExcludedWorker, ...] = ()
    run: str = ""
    format: int = NIGHT_FORMAT

    def count(self, outcome: Outcome) -> int:
        """Return the number of products with an outcome."""
        return sum(product.run.outcome is outcome for product in self.products)
