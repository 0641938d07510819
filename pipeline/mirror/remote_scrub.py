"""Scrub a registry: verify everything reachable from its tags, upload damaged content anew.

Uploads are read back; what the registry does not replace is reported as lost. A registry has no quarantine; the store
records which blobs were read, and when (`known_blobs.KnownInRun`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import field

from pipeline.digest import Digest, identity
from pipeline.errors import RelbuildError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.known_blobs import SCRUB_KNOWN_SECONDS, KnownInRun
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.mirror.references import References, references
from pipeline.mirror.repair_sources import ReadThrottle, RepairSources
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


def scrub_remote(
    mirror: Mirror, known: KnownInRun, healing: RepairSources, *, rate: int, progress: Progress
) -> ScrubResult:
    """Scrub all repositories that a mirror lists, at most `rate` bytes a second (0: no limit).

    Raises EnvironmentLacking if it cannot be reached.
    """
    names = mirror.repositories()
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
        for tag in repository.tags():
            self.tags += 1
            digest = self._tag(repository, tag)
            if digest is not None:
                waiting.append(digest)
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

    def _tag(self, repository: Repository, tag: str) -> Digest | None:
        """Resolve a tag; add a finding and return None if the registry's response is invalid."""
        try:
            return repository.resolve(tag)
        except VerificationError:
            self.findings.append(
                Finding(ScrubbedObject.TAG, DamageKind.ROTTEN, tag, repository.name, RepairOutcome.LOST)
            )
            return None

    def _referrers(self, repository: Repository, digest: Digest) -> list[Digest]:
        try:
            return [one.descriptor.digest for one in repository.referrers(digest)]
        except VerificationError:
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
        except VerificationError:
            pass
        if manifest is None:
            good = self.healing.manifest(digest, (repository.name,))
            source = good[1] if good is not None and self._sent(repository, good[0]) else ""
            self._found(ScrubbedObject.MANIFEST, wrong, digest, repository, source=source)
            manifest = good[0] if good is not None and source else None
        try:
            return references(manifest) if manifest is not None else None
        except VerificationError:  # published so: malformed, not corrupted
            return None

    def _sent(self, repository: Repository, manifest: Manifest) -> bool:
        try:
            repository.put_manifest(manifest)
        except RelbuildError:
            return False
        return True

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
