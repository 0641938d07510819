"""Scrub a directory mirror: verify every file, restore damaged ones, update its lists.

Order: manifests, then blobs (read without a lock, by digest), then tags, referrers indexes and the lists of tags and
repositories. Corrupt files are moved to quarantine. Publishing and pruning continue meanwhile: before anything is
changed it is checked again under the locks that they take, so files that they added or removed are not reported. A
scrub that was killed and is run again continues after the last blob that it recorded (`scrub_record`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import (
    mirror_errors,
    open_without_links,
    sync_names,
    write_blob,
)
from pipeline.mirror.backends.directory.lost_tags import linked_names, put_tag_aside, relink_tag, tag_target
from pipeline.mirror.backends.directory.manifest_files import is_named_rightly, manifest_files
from pipeline.mirror.backends.directory.mirror_paths import RepositoryPaths
from pipeline.mirror.backends.directory.misplaced_files import put_misplaced_aside
from pipeline.mirror.backends.directory.scrub_record import ScrubRecord
from pipeline.mirror.backends.directory.server_files import warn_of_links
from pipeline.mirror.known_blobs import (
    hash_file,
    regular_file,
    set_aside,
    stamp_of,
)
from pipeline.mirror.references import References, listed_repositories, listed_tags, readable_references
from pipeline.mirror.repair_sources import ReadThrottle, RepairSources
from pipeline.mirror.retention.reachability import tag_subject
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.model.scrub import (
    DamageKind,
    Finding,
    RepairOutcome,
    ScrubbedObject,
    ScrubResult,
)
from pipeline.oci.image_manifest import DOCUMENT_LIMIT
from pipeline.progress import Progress, Task, task

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror

SCRUBBED_MIRROR = "what is there"
"""Source that is reported for a list made anew from the mirror's own content."""

_BLOB_NAME = re.compile(r"[0-9a-f]{64}")


def scrub_directory(mirror: DirectoryMirror, healing: RepairSources, *, rate: int, progress: Progress) -> ScrubResult:
    """Scrub all of a directory mirror, at most `rate` bytes a second (0: no limit).

    Raises EnvironmentLacking `mirror-unreachable`.
    """
    with mirror_errors(mirror.url):
        planted = put_misplaced_aside(mirror.place, progress.warn)
        drafts = mirror.place.sweep()
        warn_of_links(mirror.place.root, progress)
        total = sum(found.st_size for path in _blob_files(mirror) if (found := regular_file(path)))
        with task(progress, "scrub", mirror.url, total=total, unit="bytes") as running:
            record = ScrubRecord.begin(mirror.place)
            scrub = _DirectoryScrub(mirror, healing, ReadThrottle(rate), running, drafts, record, findings=planted)
            return scrub.run()


def _blob_files(mirror: DirectoryMirror) -> list[Path]:
    return sorted(path for path in mirror.place.blobs.iterdir() if _BLOB_NAME.fullmatch(path.name))


@dataclass(slots=True)
class _DirectoryScrub:
    mirror: DirectoryMirror
    healing: RepairSources
    throttle: ReadThrottle
    task: Task
    drafts: int
    record: ScrubRecord
    held: dict[tuple[str, Digest], References] = field(default_factory=dict)
    needed: dict[Digest, tuple[Descriptor, list[str]]] = field(default_factory=dict)
    """Blob → its descriptor in a manifest, and the repositories that need it."""
    lists: dict[tuple[str, Digest], Digest] = field(default_factory=dict)
    """Referrers indexes: (repository, digest) → subject."""
    findings: list[Finding] = field(default_factory=list)
    blobs: int = 0
    read: int = 0
    earlier: int = 0
    tags: int = 0

    def run(self) -> ScrubResult:
        """Scrub everything, in the order of the module's docstring."""
        place = self.mirror.place
        all_paths = [place.paths(name) for name in place.names() if not place.paths(name).manifests.is_symlink()]
        for paths in all_paths:
            self._find_lists(paths)
        for paths in all_paths:
            self._manifests(paths)
        for path in _blob_files(self.mirror):
            self._blob(path)
        self.record.note()
        for paths in all_paths:
            self._tags(paths)
            self._referrers(paths)
        self._missing()
        self._tag_and_repository_lists(all_paths)
        self.record.end()
        return ScrubResult(
            self.mirror.url,
            self.blobs,
            self.read,
            self.earlier,
            len(self.held),
            self.tags,
            self.drafts,
            tuple(self.findings),
        )

    @contextlib.contextmanager
    def _changing(self, paths: RepositoryPaths) -> Iterator[None]:
        with self.mirror.writing(), paths.locked():
            yield

    def _found(
        self,
        thing: ScrubbedObject,
        wrong: DamageKind,
        name: str,
        repository: str,
        source: str | None,
        *,
        unused: bool = False,
    ) -> None:
        fate = RepairOutcome.HEALED if source else RepairOutcome.ASIDE if unused else RepairOutcome.LOST
        self.findings.append(Finding(thing, wrong, name, repository, fate, source or ""))

    # --- manifests

    def _find_lists(self, paths: RepositoryPaths) -> None:
        for tag in paths.tag_names():
            about, digest = tag_subject(tag), paths.target(tag)
            if about is not None and about[1] and digest is not None:
                self.lists[paths.name, digest] = about[0]

    def _manifests(self, paths: RepositoryPaths) -> None:
        planted: list[tuple[Digest, Path, bool]] = []
        for path, digest, media_type in manifest_files(paths.manifests):
            manifest = self._read(path, media_type)
            if manifest is None or manifest.digest != digest:
                manifest = self._restore_corrupt_manifest(paths, digest, path, media_type)
            if manifest is not None:
                second = not is_named_rightly(path, manifest.data, media_type)
                if not self._note_references(paths, manifest) or second:
                    planted.append((digest, path, second))
        for digest, path, second in planted:
            self._put_planted_aside(paths, digest, path, second)

    def _note_references(self, paths: RepositoryPaths, manifest: Manifest) -> bool:
        """Note what a manifest refers to; return False for a malformed one, which nobody published."""
        said, before = readable_references(manifest), self.held.get((paths.name, manifest.digest))
        if said is None:
            return False
        self.held[paths.name, manifest.digest] = said if before is None else said.joined(before)
        for blob in said.blobs:
            self.needed.setdefault(blob.digest, (blob, []))[1].append(paths.name)
        return True

    def _put_planted_aside(self, paths: RepositoryPaths, digest: Digest, path: Path, second: bool) -> None:
        """Quarantine a malformed manifest, or a second name of one, unless a tag leads to it."""
        with self._changing(paths):
            used = any(name.startswith(path.name if second else digest.hex) for name in linked_names(paths.tags))
            if not used:
                set_aside(self.mirror.place.root, path)
        if not (used and second):
            self._found(ScrubbedObject.MANIFEST, DamageKind.ROTTEN, str(digest), paths.name, None, unused=not used)

    def _read(self, path: Path, media_type: str) -> Manifest | None:
        try:
            file = open_without_links(self.mirror.place.root, path)
            if file is None:
                return None
            with file:
                return Manifest(media_type, file.read(DOCUMENT_LIMIT + 1))
        except OSError:  # the disk cannot read it
            return None

    def _restore_corrupt_manifest(
        self, paths: RepositoryPaths, digest: Digest, path: Path, media_type: str
    ) -> Manifest | None:
        """Replace a corrupt manifest with a good copy, which is returned, or quarantine it.

        Checked again under the lock: it may have been replaced or removed meanwhile, which is no finding.
        """
        with self._changing(paths):
            again = self._read(path, media_type)
            if again is not None and again.digest == digest:
                return again
            if not os.path.lexists(path):
                return None
            good = self.healing.manifest(digest, (paths.name,))
            if good is not None:
                paths.write(good[0])
            else:
                set_aside(self.mirror.place.root, path)
        if good is None and (paths.name, digest) in self.lists:
            return None  # a referrers index: `_tags` makes it anew from the referrers
        self._found(ScrubbedObject.MANIFEST, DamageKind.ROTTEN, str(digest), paths.name, good[1] if good else None)
        return good[0] if good else None

    # --- blobs

    def _blob(self, path: Path) -> None:
        place = self.mirror.place
        digest = Digest(path.name)
        found = regular_file(path)
        if found is not None and self.record.was_read(digest, stamp_of(found)):
            self.earlier += 1
            self.task.advance(found.st_size)
            return
        self.blobs += 1
        try:
            seen = hash_file(place.root, path, self._advance)
        except OSError:  # the disk cannot read it
            seen = None
        if seen is not None and seen.digest == digest:
            self.record.add(digest, seen)
            return
        self._restore_blob(digest, DamageKind.ROTTEN)

    def _advance(self, size: int) -> None:
        self.read += size
        self.record.unnoted += size
        self.task.advance(size)
        self.throttle.wait(size)

    def _restore_blob(self, digest: Digest, wrong: DamageKind) -> None:
        place = self.mirror.place
        path = place.blob(digest)
        about, names = self.needed.get(digest) or self._newly_needed(digest)
        descriptor = about or Descriptor("application/octet-stream", digest, _size(path))
        good = None if self._no_longer_wrong(digest, wrong) else self.healing.blob(descriptor, sorted(set(names)))
        with self.mirror.writing():
            if self._no_longer_wrong(digest, wrong):
                return
            place.known.forget(digest)
            if os.path.lexists(path):
                set_aside(place.root, path, stays=good is not None)
            if good is not None:
                write_blob(Descriptor(descriptor.media_type, digest, _size(good[0])), good[0], path, place.drafts)
                sync_names(place.blobs)
        where, source = ", ".join(sorted(set(names))), good[1] if good else None
        self._found(ScrubbedObject.BLOB, wrong, str(digest), where, source, unused=about is None)

    def _no_longer_wrong(self, digest: Digest, wrong: DamageKind) -> bool:
        """Return whether the blob was written intact, or removed on purpose, in the meantime."""
        path = self.mirror.place.blob(digest)
        if not os.path.lexists(path):
            return wrong is DamageKind.ROTTEN
        try:
            seen = hash_file(self.mirror.place.root, path)
        except OSError:
            return False
        return seen is not None and seen.digest == digest

    def _newly_needed(self, digest: Digest) -> tuple[Descriptor | None, list[str]]:
        """Look for a blob in manifests that were added since the scrub read them.

        Returns its descriptor (None: not found) and the names of the repositories that need it.
        """
        for name in self.mirror.place.names():
            paths = self.mirror.place.paths(name)
            for path, found, media_type in manifest_files(paths.manifests):
                if (name, found) not in self.held:
                    manifest = self._read(path, media_type)
                    if manifest is not None and manifest.digest == found:
                        self._note_references(paths, manifest)
        return self.needed.get(digest) or (None, [])

    def _missing(self) -> None:
        """Restore missing manifests and blobs to which manifests refer."""
        looked_at: set[tuple[str, Digest]] = set()
        while waiting := self.held.keys() - looked_at:
            for name, digest in sorted(waiting, key=lambda one: (one[0], one[1].hex)):
                looked_at.add((name, digest))
                paths = self.mirror.place.paths(name)
                for entry in self.held[name, digest].manifests:
                    if paths.find(entry.digest) is None and paths.find(digest) is not None:
                        self._restore_manifest(paths, entry.digest)
        for digest, (_, names) in sorted(self.needed.items(), key=lambda one: one[0].hex):
            told = any(one.name == str(digest) for one in self.findings)
            if not told and regular_file(self.mirror.place.blob(digest)) is None and self._still_needed(digest, names):
                self._restore_blob(digest, DamageKind.MISSING)

    def _still_needed(self, digest: Digest, names: list[str]) -> bool:
        """Return whether a manifest that refers to a blob is still there, not pruned meanwhile."""
        with self.mirror.writing():
            return any(
                self.mirror.place.paths(name).find(manifest) is not None
                for (name, manifest), said in self.held.items()
                if name in names and any(blob.digest == digest for blob in said.blobs)
            )

    def _restore_manifest(self, paths: RepositoryPaths, digest: Digest) -> None:
        if any(one.name == str(digest) and one.repository == paths.name for one in self.findings):
            return
        good = self.healing.manifest(digest, (paths.name,))
        if good is not None:
            with self._changing(paths):
                paths.write(good[0])
            self._note_references(paths, good[0])
        self._found(ScrubbedObject.MANIFEST, DamageKind.MISSING, str(digest), paths.name, good[1] if good else None)

    # --- tags and lists

    def _tags(self, paths: RepositoryPaths) -> None:
        for tag in sorted(path.name for path in paths.tags.iterdir()):
            self.tags += 1
            about = tag_subject(tag)
            lists = about is not None and about[1]
            digest = tag_target(paths, tag)
            if digest is None:
                self._put_tag_aside(paths, tag, digest, unused=lists)
            elif paths.find(digest) is not None:
                continue
            elif about is not None and lists:
                self._rebuild_referrers(paths, about[0])
                if paths.target(tag) == digest:  # there are none
                    self._put_tag_aside(paths, tag, digest, unused=True)
            elif paths.target(tag) == digest and not any(one.name == str(digest) for one in self.findings):
                self._restore_manifest(paths, digest)

    def _put_tag_aside(self, paths: RepositoryPaths, tag: str, target: Digest | None, *, unused: bool) -> None:
        """Make a tag's link again, or quarantine what is none or leads nowhere for ever."""
        with self._changing(paths):
            now = tag_target(paths, tag)
            if now != target or not os.path.lexists(paths.tags / tag) or (now and paths.find(now) is not None):
                return
            healed = SCRUBBED_MIRROR if now is None and relink_tag(paths, tag) else None
            if healed is None:
                put_tag_aside(self.mirror.place.root, paths.name, paths.tags / tag)
        self._found(ScrubbedObject.TAG, DamageKind.ROTTEN, tag[:140], paths.name, healed, unused=unused)

    def _referrers(self, paths: RepositoryPaths) -> None:
        """Add unlisted referrers to their referrers index; restore listed ones that are missing."""
        about: dict[Digest, set[Digest]] = {}
        for (name, digest), said in self.held.items():
            if name == paths.name and said.subject is not None:
                about.setdefault(said.subject, set()).add(digest)
        for subject, wanted in sorted(about.items(), key=lambda one: one[0].hex):
            index = paths.listed_referrers(subject)
            listed = {one.descriptor.digest for one in index or ()}
            if index is None or not wanted <= listed:
                self._rebuild_referrers(paths, subject)
            for digest in sorted(listed - wanted, key=lambda one: one.hex):
                if paths.find(digest) is None:
                    self._restore_manifest(paths, digest)

    def _rebuild_referrers(self, paths: RepositoryPaths, subject: Digest) -> None:
        with self._changing(paths):
            done = False
            for (name, digest), said in sorted(self.held.items(), key=lambda one: one[0][1].hex):
                ours = name == paths.name and said.subject == subject
                manifest = self._present(paths, digest) if ours else None
                if manifest is not None:
                    done = paths.attach(manifest) or done
        if done:
            self._found(ScrubbedObject.REFERRERS, DamageKind.OUTDATED, str(subject), paths.name, SCRUBBED_MIRROR)

    def _present(self, paths: RepositoryPaths, digest: Digest) -> Manifest | None:
        try:
            return paths.read(digest)
        except VerificationError:  # corrupted since it was read: for the next scrub
            return None

    def _tag_and_repository_lists(self, all_paths: list[RepositoryPaths]) -> None:
        place = self.mirror.place
        for paths in all_paths:
            with self._changing(paths):
                if place.write_list(paths.folder / "_tags.json", listed_tags(paths.name, paths.tag_names())):
                    self._found(ScrubbedObject.LISTING, DamageKind.OUTDATED, "tags", paths.name, SCRUBBED_MIRROR)
        with place.cataloguing():
            if place.write_list(place.root / "catalog.json", listed_repositories(place.names())):
                self._found(ScrubbedObject.LISTING, DamageKind.OUTDATED, "repositories", "", SCRUBBED_MIRROR)


def _size(path: Path) -> int:
    return found.st_size if (found := regular_file(path)) is not None else 0
