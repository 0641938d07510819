"""Data classes for the job of one product in a night, its settings and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace

from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.model.absolute_path import AbsolutePath
from pipeline.model.night_record import Product
from pipeline.model.provenance import Provenance
from pipeline.model.rules import MirrorRules
from pipeline.nightly.inputs import KEY_INPUT, REPOSITORIES_INPUT, TEST_INPUTS, changed_inputs
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct
from pipeline.oci import VerifyingKey


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings that all products of a night have in common.

    Every path is absolute, because it is used in other processes and on other machines. `key` is the file of the key
    that signs, on the worker (None where nothing is to be signed), `fingerprint` is its; `former` are public keys of
    the publisher before it, whose signatures count as well; `clock` gives seconds since the epoch. `again` is the
    command that runs the night again for all its products, with paths as they were given.
    """

    repositories: AbsolutePath
    to: Address
    key: AbsolutePath | None
    store: AbsolutePath
    output: AbsolutePath
    environment: Mapping[str, str] = field(repr=False)
    clock: Callable[[], float]
    platform: str | None = None
    architectures: tuple[str, ...] = ()
    fingerprint: str = ""
    former: tuple[VerifyingKey, ...] = ()
    known_as: str = ""
    rules: MirrorRules = MirrorRules()
    compression: Compression = Compression.GZIP
    locked: bool = False
    offline: bool = False
    full: bool = False
    retest: bool = False
    runtime: str | None = None
    again: tuple[str, ...] = ()

    @property
    def signers(self) -> str:
        """The fingerprints of the key and of the former ones, separated by commas."""
        return ",".join((self.fingerprint, *(str(key.fingerprint) for key in self.former)))


def signed_by_present_key(record: InputsRecord, settings: RunSettings) -> InputsRecord:
    """Return a record with the present key as its input, where that is a former one."""
    former = {str(key.fingerprint) for key in settings.former}
    facts = (
        (name, settings.fingerprint if name == KEY_INPUT and value in former else value) for name, value in record.facts
    )
    return replace(record, facts=tuple(facts))


@dataclass(frozen=True, slots=True)
class MemberImage:
    """A product's image for one of several architectures, on the mirror, maybe without a tag.

    `architecture` is rpm's name, `lock` its section of tonight's lock as text. `templates` are the names of those that
    were looked for, `templates_content` the digest of what they said then. `provenance` is its build's without
    materials; None: it is the published image, and resolving gave its packages again. `tested`: its checks were asked
    tonight.
    """

    architecture: str
    digest: Digest
    lock: str
    templates: tuple[str, ...]
    templates_content: str
    provenance: Provenance | None = None
    tested: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """The task to make one product.

    `locks` are (product, text): its own, "" if the worker is to resolve, and those of its ancestors; `parents` are
    (architecture, digest) of its parent's images, as they were published. `facts` are its inputs, `on_mirror` what is
    published. `test_only`: only its checks changed.

    On several machines a product of several architectures is made by several jobs: for each `architecture` one that
    makes and pushes its image, and one that publishes the index of those `members`.
    """

    product: Product
    recipe: AbsolutePath
    settings: RunSettings
    facts: tuple[tuple[str, str], ...]
    locks: tuple[tuple[str, str], ...]
    why: str
    on_mirror: PublishedProduct | None = None
    parents: tuple[tuple[str, Digest], ...] = ()
    resolve: bool = False
    test_only: bool = False
    architecture: str = ""
    members: tuple[MemberImage, ...] = ()

    @property
    def may_be_same(self) -> bool:
        """Return whether resolving may show that the image would be the same."""
        if not self.resolve or self.on_mirror is None or self.settings.retest:
            return False
        return set(changed_inputs(self.on_mirror.record.inputs, dict(self.facts))) <= TEST_INPUTS | {REPOSITORIES_INPUT}


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of a job, and what is to be kept of it: None where it failed.

    `member` is the image of a job that made but one of an index; there is nothing to be kept of it yet.
    """

    product: Product
    on_mirror: PublishedProduct | None
    lock: str = ""
    member: MemberImage | None = None
