"""Scrub an OCI layout: verify every blob, restore those reachable from index.json.

Like `directory_scrub`, but without a record of blobs known to be intact: a layout is carried to another place and read
anew there.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import RelbuildError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import mirror_errors, sync_names, write_blob
from pipeline.mirror.known_blobs import hash_file, regular_file, set_aside
from pipeline.mirror.references import references
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
from pipeline.oci import blob_path, media_types
from pipeline.progress import Progress, Task, task

if TYPE_CHECKING:
    from pipeline.mirror.backends.layout.layout_mirror import LayoutMirror

_BLOB_NAME = re.compile(r"[0-9a-f]{64}")

_MANIFESTS = frozenset({media_types.MANIFEST, media_types.INDEX})


def scrub_layout(mirror: LayoutMirror, healing: RepairSources, *, rate: int, progress: Progress) -> ScrubResult:
    """Scrub all of a layout, at most `rate` bytes a second (0: no limit).

    Raises EnvironmentLacking `mirror-unreachable`, VerificationError if index.json, which has no digest, cannot be
    read.
    """
    with mirror_errors(mirror.url):
        drafts = mirror.sweep()
        files = sorted(one for one in mirror.blobs.iterdir() if _BLOB_NAME.fullmatch(one.name))
        total = sum(found.st_size for path in files if (found := regular_file(path)))
        with task(progress, "scrub", mirror.url, total=total, unit="bytes") as running:
            scrub = _LayoutScrub(mirror, healing, ReadThrottle(rate), running)
            for path in files:
                scrub.blob(Digest(path.name))
            tags = scrub.follow()
    return ScrubResult(mirror.url, len(files), scrub.read, 0, len(scrub.followed), tags, drafts, tuple(scrub.findings))


@dataclass(slots=True)
class _LayoutScrub:
    mirror: LayoutMirror
    healing: RepairSources
    throttle: ReadThrottle
    task: Task
    rotten: dict[Digest, DamageKind] = field(default_factory=dict)
    """Corrupt blobs whose descriptors are not known yet."""
    followed: set[Digest] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    read: int = 0

    def blob(self, digest: Digest) -> None:
        """Read and verify one blob; note it if it is corrupt."""
        path = blob_path(self.mirror.path, digest)
        try:
            seen = hash_file(self.mirror.path, path, self._advance)
        except OSError:  # the disk cannot read it
            seen = None
        if (seen is None and os.path.lexists(path)) or (seen is not None and seen.digest != digest):
            self.rotten[digest] = DamageKind.ROTTEN

    def follow(self) -> int:
        """Restore damaged blobs that are reachable from index.json; return the number of tags.

        Corrupt blobs that are not reachable are moved to quarantine.
        """
        waiting = list(self.mirror.entries())
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in self.followed:
                continue
            self._restore(descriptor)
            if descriptor.media_type not in _MANIFESTS:
                continue
            self.followed.add(descriptor.digest)
            manifest = self._manifest(descriptor.digest)
            with contextlib.suppress(VerificationError):  # published so: malformed, not corrupted
                said = references(manifest) if manifest is not None else None
                waiting += said.manifests if said else ()
                for one in said.blobs if said else ():
                    self._restore(one)
        for digest in sorted(self.rotten, key=lambda one: one.hex):
            set_aside(self.mirror.path, blob_path(self.mirror.path, digest))
            self.findings.append(Finding(ScrubbedObject.BLOB, DamageKind.ROTTEN, str(digest), "", RepairOutcome.ASIDE))
        return len(self.mirror.repository("").tags())

    def _advance(self, size: int) -> None:
        self.read += size
        self.task.advance(size)
        self.throttle.wait(size)

    def _manifest(self, digest: Digest) -> Manifest | None:
        try:
            return self.mirror.repository("").manifest(digest)
        except RelbuildError:
            return None

    def _restore(self, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        path = blob_path(self.mirror.path, digest)
        wrong = self.rotten.pop(digest, None)
        if wrong is None and regular_file(path) is None:
            wrong = DamageKind.MISSING
        if wrong is None or any(one.name == str(digest) for one in self.findings):
            return
        content: bytes | Path
        if descriptor.media_type in _MANIFESTS:
            manifest = self.healing.manifest(digest, ())
            content, source = (manifest[0].data, manifest[1]) if manifest else (b"", "")
        else:
            blob = self.healing.blob(descriptor, ())
            content, source = blob or (b"", "")
        if os.path.lexists(path):
            set_aside(self.mirror.path, path, stays=bool(source))
        if source:
            write_blob(descriptor, content, path, self.mirror.drafts)
            sync_names(path.parent)
        thing = ScrubbedObject.MANIFEST if descriptor.media_type in _MANIFESTS else ScrubbedObject.BLOB
        self.findings.append(
            Finding(thing, wrong, str(digest), "", RepairOutcome.HEALED if source else RepairOutcome.LOST, source)
        )
