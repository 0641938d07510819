"""Scrub a registry: verify everything reachable from its tags, upload damaged content anew.

Uploads are read back; what the registry does not replace is reported as lost. A registry has no quarantine; the store
records which blobs were read, and when (`known_blobs.KnownInRun`).

A tag that is listed and leads to nothing has lost its manifest. The registry does not tell its digest any more; it is
taken from the newest statement on the tag, or from the names of other tags. No tag is moved: registries keep the digest
of a tag, which leads somewhere again when that manifest was sent.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import field

from pipeline.digest import Digest, identity
from pipeline.errors import EnvironmentLacking, RelbuildError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.image_tags import named_digest_prefix
from pipeline.mirror.inventory import tags_without_manifest
from pipeline.mirror.known_blobs import SCRUB_KNOWN_SECONDS, KnownInRun
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.mirror.references import References, references
from pipeline.mirror.repair_sources import ReadThrottle, RepairSources
from pipeline.mirror.retention.reachability import tag_subject
from pipeline.mirror.tag_statements import list_statements
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.model.scrub import (
    DamageKind,
    Finding,
    RepairOutcome,
    ScrubbedObject,
    ScrubResult,
)
from pipeline.progress import Progress, Task, task

FAILURES_MOST = 50
"""Manifests and tags to which a registry answers with an error, at most: each is asked for several times, with pauses.
With more of them the registry has another fault than a few damaged files."""

_FAILING = "registry-failing"


def scrub_remote(
    mirror: Mirror,
    names: Sequence[str],
    known: KnownInRun,
    healing: RepairSources,
    *,
    rate: int,
    progress: Progress,
) -> ScrubResult:
    """Scrub the repositories `names` of a mirror, at most `rate` bytes a second (0: no limit).

    A manifest to which the registry answers with an error is a finding. Raises EnvironmentLacking if the registry
    cannot be reached, answers so to more than `FAILURES_MOST` of them, or to anything else.
    """
    with task(progress, "scrub", mirror.url, unit="bytes") as running:
        scrub = _RemoteScrub(mirror, known, healing, ReadThrottle(rate), running)
        scrub.run(names)
    return ScrubResult(
        mirror.url,
        scrub.blobs,
        scrub.read,
        scrub.earlier,
        scrub.manifests,
        scrub.tags,
        0,
        tuple(scrub.findings),
    )


@dataclass(slots=True)
class _RemoteScrub:
    mirror: Mirror
    known: KnownInRun
    healing: RepairSources
    throttle: ReadThrottle
    task: Task
    seen: set[Digest] = field(default_factory=set)
    """Blobs read so far: the registry's repositories share them."""
    findings: list[Finding] = field(default_factory=list)
    blobs: int = 0
    read: int = 0
    earlier: int = 0
    manifests: int = 0
    tags: int = 0
    failures: int = 0
    kept: set[Digest] = field(default_factory=set)
    """Manifests that were sent again, and of which the registry keeps what it has."""

    def run(self, names: Iterable[str]) -> None:
        """Scrub one repository after the other."""
        run = self._begin()
        for name in names:
            self._repository(self.mirror.repository(name), run)
        self.healing.store.remember(self._name(), 0)

    def _begin(self) -> str:
        """Return the random name of this scrub, or of an interrupted one, which is continued."""
        now = int(self.known.clock())
        match self.healing.store.recall(self._name()):
            case [int(began), str(run)] if 0 <= now - began < SCRUB_KNOWN_SECONDS:
                return run
        run = secrets.token_hex(8)
        self.healing.store.remember(self._name(), [now, run])
        return run

    def _name(self) -> Digest:
        return identity("scrub-under-way", 1, mirror=self.mirror.url)

    def _repository(self, repository: Repository, run: str) -> None:
        asked: set[Digest] = set()
        waiting: list[Digest] = []
        empty: list[str] = []
        broken: dict[str, DamageKind] = {}
        tags = repository.tags()
        for tag in tags:
            self.tags += 1
            try:
                digest = repository.resolve(tag)
            except RelbuildError as error:
                self._refuse_other(error)
                broken[tag] = DamageKind.ROTTEN
                continue
            if digest is not None:
                waiting.append(digest)
            else:
                empty.append(tag)
        broken |= dict.fromkeys(tags_without_manifest(repository, empty), DamageKind.MISSING)
        led_to = {tag: _former_targets(repository, tag, tags) for tag in broken}
        waiting += [digest for targets in led_to.values() for digest in targets]
        while waiting:
            digest = waiting.pop()
            if digest in asked:
                continue
            asked.add(digest)
            self.manifests += 1
            said = self._manifest(repository, digest)
            if said is None:
                continue
            wrong_sizes = [self._has_other_size(repository, blob, run) for blob in said.blobs]
            if any(wrong_sizes):  # nobody published it so, and its blobs are good
                self._found(ScrubbedObject.MANIFEST, DamageKind.ROTTEN, digest, repository)
            waiting += [one.digest for one in said.manifests]
            waiting += self._referrers(repository, digest)
        for tag, wrong in broken.items():
            self._broken_tag(repository, tag, wrong, led_to[tag])

    def _broken_tag(self, repository: Repository, tag: str, wrong: DamageKind, led_to: tuple[Digest, ...]) -> None:
        """Add a finding about a tag that leads to nothing readable.

        None is added if it does by now: its manifest is told.
        """
        fate = RepairOutcome.KEPT if self.kept.intersection(led_to) else RepairOutcome.LOST
        if fate is RepairOutcome.LOST:
            with contextlib.suppress(RelbuildError):
                if repository.resolve(tag) is not None:
                    return
        self.findings.append(Finding(ScrubbedObject.TAG, wrong, tag, repository.name, fate))

    def _refuse_other(self, error: RelbuildError) -> None:
        """Raise an error that is no finding.

        Findings are invalid content, and a few answers of a registry with an error.
        """
        if isinstance(error, EnvironmentLacking) and error.code == _FAILING and self.failures < FAILURES_MOST:
            self.failures += 1
        elif not isinstance(error, VerificationError):
            raise error

    def _referrers(self, repository: Repository, digest: Digest) -> list[Digest]:
        try:
            return [one.descriptor.digest for one in repository.referrers(digest)]
        except RelbuildError as error:
            self._refuse_other(error)
            self.findings.append(
                Finding(ScrubbedObject.REFERRERS, DamageKind.ROTTEN, str(digest), repository.name, RepairOutcome.LOST)
            )
            return []

    def _manifest(self, repository: Repository, digest: Digest) -> References | None:
        wrong = DamageKind.ROTTEN
        manifest: Manifest | None = None
        try:
            manifest = repository.manifest(digest)
            wrong = DamageKind.MISSING
        except RelbuildError as error:
            self._refuse_other(error)
        if manifest is None:
            good = self.healing.manifest(digest, (repository.name,))
            fate = self._sent(repository, good[0]) if good is not None else RepairOutcome.LOST
            if fate is RepairOutcome.KEPT:
                self.kept.add(digest)
            healed = good if fate is RepairOutcome.HEALED else None
            source = healed[1] if healed is not None else ""
            self._found(
                ScrubbedObject.MANIFEST, wrong, digest, repository, source=source, kept=fate is RepairOutcome.KEPT
            )
            manifest = healed[0] if healed is not None else None
        try:
            return references(manifest) if manifest is not None else None
        except VerificationError:  # published so: malformed, not corrupted
            return None

    def _sent(self, repository: Repository, manifest: Manifest) -> RepairOutcome:
        """Send a manifest, and read it back."""
        try:
            # Nothing is asked first: a registry may answer with an error to that, and take it all the same.
            repository.put_manifest(manifest, new=True)
        except RelbuildError:
            return RepairOutcome.LOST
        try:
            same = repository.manifest(manifest.digest) == manifest
        except RelbuildError:
            same = False
        return RepairOutcome.HEALED if same else RepairOutcome.KEPT

    def _has_other_size(self, repository: Repository, blob: Descriptor, run: str) -> bool:
        """Scrub a blob; return whether it is intact, and has another size than a manifest gives it."""
        try:
            self._blob(repository, blob, run)
        except VerificationError as error:
            if error.code != "blob-size":
                raise
            self.known.note_scrub(blob.digest, run)
            return True
        return False

    def _blob(self, repository: Repository, blob: Descriptor, run: str) -> None:
        if blob.digest in self.seen:
            return
        self.seen.add(blob.digest)
        known = self.known
        if known.read_in(blob.digest, run):
            self.earlier += 1
            return
        self.blobs += 1
        try:
            repository.check_blob(blob, self._advance)
        except VerificationError as error:
            if error.code == "blob-size":
                raise
            known.forget(blob.digest)
            wrong = DamageKind.MISSING if error.code == "blob-missing" else DamageKind.ROTTEN
            good = self.healing.blob(blob, (repository.name,))
            source, kept = "", False
            if good is not None:
                try:
                    repository.put_blob(blob, good[0])
                    source = good[1]
                except VerificationError:  # the registry does not replace it
                    kept = True
            self._found(ScrubbedObject.BLOB, wrong, blob.digest, repository, source=source, kept=kept)
        else:
            known.note_scrub(blob.digest, run)

    def _advance(self, size: int) -> None:
        self.read += size
        self.task.advance(size)
        self.throttle.wait(size)

    def _found(
        self,
        thing: ScrubbedObject,
        wrong: DamageKind,
        digest: Digest,
        repository: Repository,
        *,
        source: str = "",
        kept: bool = False,
    ) -> None:
        fate = RepairOutcome.HEALED if source else RepairOutcome.KEPT if kept else RepairOutcome.LOST
        self.findings.append(Finding(thing, wrong, str(digest), repository.name, fate, source))


def _former_targets(repository: Repository, tag: str, tags: Sequence[str]) -> tuple[Digest, ...]:
    """Return the digests to which a tag without manifest may have led.

    They are from its newest signed move, or from the names of tags. Nothing is verified: they say what to look for in
    the store, which verifies it.
    """
    about = tag_subject(tag)
    if about is not None:
        return ()
    short = named_digest_prefix(tag)
    if short is not None:
        subjects = (tag_subject(one) for one in tags)
        return tuple({one[0]: None for one in subjects if one is not None and one[0].short == short})
    with contextlib.suppress(RelbuildError):
        for one in list_statements(repository, repository.identity, tag)[:1]:
            return (one.statement.move.after,)
    return ()
