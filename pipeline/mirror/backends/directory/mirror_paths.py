"""Paths and locks of a directory mirror; read and write its manifests, tags and referrers.

    relbuild-mirror.json                    marker: format, and the host by which clients pull
    nginx.conf, rsync.sh                    configuration to serve and script to copy the mirror
    catalog.json                            response to `/v2/_catalog`
    blobs/sha256/HEX                        every blob, once for all repositories
    repositories/NAME/_manifests/HEX.KIND   a manifest; KIND stands for its media type (`references.MANIFEST_KINDS`)
    repositories/NAME/_tags/TAG             a symbolic link to ../_manifests/HEX.KIND
    repositories/NAME/_tags.json            response to `/v2/NAME/tags/list`
    repositories/NAME/_lock                 lock for moving a tag of the repository
    repositories/NAME/_moves                lock for resolving, moving and signing tags in one go
    .lock/                                  locks for publishing, pruning and adding a repository
    .incoming/                              drafts
    .quarantine/STAMP/                      what one pruning removed and can be restored
    .quarantine/rotten/                     files whose content does not match their digest
    .scrub/                                 blobs known to be intact (`known_blobs`), and progress of a scrub

No part of a repository's name begins with `_` or `.` (distribution-spec 1.1), so `a` and `a/b` can both be
repositories. The link's text alone says a tag's digest and media type, so one rename moves it. The tag `sha256-HEX`
points to the referrers index of an image, for clients with the referrers API and without.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import (
    file_locked,
    make_drafts_folder,
    make_folder,
    open_without_links,
    replace_file,
    replace_symlink,
    sweep_drafts,
    sync_names,
)
from pipeline.mirror.backends.directory import write_lock
from pipeline.mirror.backends.directory.lost_tags import put_tag_aside
from pipeline.mirror.backends.directory.manifest_files import attached_manifests, damaged_manifest, read_regular
from pipeline.mirror.backends.directory.manifest_names import (
    manifest_file_name,
    manifest_file_names,
    named_digest,
    named_media_type,
)
from pipeline.mirror.known_blobs import KnownInFolder, regular_file, set_aside
from pipeline.mirror.protocol import TAG
from pipeline.mirror.references import (
    fallback_tag,
    listed_referrers,
    listed_repositories,
    listed_tags,
    readable_references,
    references,
    referrer_of,
    referrers_index,
    require_complete,
)
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci.image_manifest import DOCUMENT_LIMIT

_ATTEMPTS = 5
"""Attempts to read a tag's manifest, which may be pruned while the tag moves on."""


@dataclass(frozen=True, slots=True)
class MirrorPaths:
    """Folders and locks of one directory mirror. `clock` returns seconds since the epoch."""

    root: Path
    clock: Callable[[], float]

    @property
    def blobs(self) -> Path:
        """The folder of all blobs."""
        return self.root / "blobs" / "sha256"

    @property
    def drafts(self) -> Path:
        """The folder of drafts (see `atomic_files`)."""
        return self.root / ".incoming"

    @property
    def repositories(self) -> Path:
        """The folder of all repositories."""
        return self.root / "repositories"

    def blob(self, digest: Digest) -> Path:
        """Return the path of a blob, which need not exist."""
        return self.blobs / digest.hex

    def paths(self, name: str) -> RepositoryPaths:
        """Return the folders of the repository `name`, a valid name."""
        return RepositoryPaths(self, name)

    @property
    def known(self) -> KnownInFolder:
        """The record of blobs known to be intact."""
        return KnownInFolder(self.root / ".scrub" / "blobs", self.drafts, self.clock)

    def make(self) -> None:
        """Make the folders that are missing."""
        for folder in (self.blobs, self.repositories, self.root / ".lock"):
            make_folder(folder)
        make_drafts_folder(self.drafts)

    def publishing(self) -> contextlib.AbstractContextManager[None]:
        """Hold the shared lock of those who add content: nothing is pruned meanwhile."""
        make_folder(self.root / ".lock")
        return write_lock.hold_shared(self.root / ".lock")

    def pruning(self, timeout: float) -> contextlib.AbstractContextManager[None]:
        """Hold the exclusive lock for pruning; publishers who begin meanwhile wait.

        Raises TimeoutError after `timeout` seconds.
        """
        make_folder(self.root / ".lock")
        return write_lock.hold_exclusive(self.root / ".lock", timeout)

    def cataloguing(self) -> contextlib.AbstractContextManager[None]:
        """Hold the exclusive lock for adding a repository."""
        return file_locked(self.root / ".lock" / "catalog")

    def names(self) -> tuple[str, ...]:
        """Return the names of all repositories, sorted."""
        found = []
        for folder, inner, _ in os.walk(self.repositories):
            if "_tags" in inner:
                found.append(Path(folder).relative_to(self.repositories).as_posix())
            inner[:] = [name for name in inner if not name.startswith(("_", "."))]
        return tuple(sorted(found))

    def write_list(self, path: Path, wanted: bytes) -> bool:
        """Write a list's file unless it has this content; return whether it was written."""
        read = read_regular(path, len(wanted))
        if read is not None and read[0] == wanted:
            return False
        if read is None and path.is_dir():  # planted: no rename replaces it
            set_aside(self.root, path)
        replace_file(wanted, path, self.drafts)
        return True

    def sweep(self) -> int:
        """Remove drafts that killed processes left; return how many."""
        return sweep_drafts(self.drafts, shared=False)


@dataclass(frozen=True, slots=True)
class RepositoryPaths:
    """Manifests, tags and referrers of one repository, as files.

    Methods that change a tag require that the caller holds `locked`.
    """

    place: MirrorPaths
    name: str

    @property
    def folder(self) -> Path:
        """The repository's folder."""
        return self.place.repositories / self.name

    @property
    def manifests(self) -> Path:
        """The folder of its manifests."""
        return self.folder / "_manifests"

    @property
    def tags(self) -> Path:
        """The folder of its tags."""
        return self.folder / "_tags"

    def make(self) -> None:
        """Make the repository; its lock file is made last, when catalog.json lists the repository."""
        if (self.folder / "_lock").exists():
            return
        with self.place.cataloguing():
            make_folder(self.manifests)
            make_folder(self.tags)
            self.place.write_list(self.place.root / "catalog.json", listed_repositories(self.place.names()))
            self.list_tags()
            (self.folder / "_lock").touch(0o600)
            sync_names(self.folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for moving tags of this repository within the block."""
        with file_locked(self.folder / "_lock"):
            yield

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Hold the lock for moving and signing tags of this repository; `locked` is taken within it.

        Tags are listed once, at the end: also those that a killed publisher moved and did not list.
        """
        with file_locked(self.folder / "_moves"):
            write_lock.count_moving(self.folder, 1)
            try:
                yield
            finally:
                write_lock.count_moving(self.folder, -1)
                with self.locked():
                    self.list_tags()

    # --- manifests

    def manifest_file(self, descriptor: Descriptor) -> Path:
        """Return the path of a manifest, which need not exist."""
        return self.manifests / manifest_file_name(descriptor)

    def find(self, digest: Digest) -> Path | None:
        """Return the path of a manifest's file; None if missing."""
        paths = (self.manifests / name for name in manifest_file_names(digest))
        return next((path for path in paths if path.exists()), None)

    def read(self, digest: Digest) -> Manifest | None:
        """Read a manifest, verified; None if missing. Raises VerificationError `digest-mismatch`."""
        path = self.find(digest)
        file = open_without_links(self.place.root, path) if path is not None else None
        if path is None or file is None:
            return None
        with file:
            data = file.read(DOCUMENT_LIMIT + 1)
        manifest = Manifest(named_media_type(path), data)
        if manifest.digest != digest:
            raise damaged_manifest(digest, path)
        return manifest

    def put(self, manifest: Manifest) -> bool:
        """Write a manifest; return False if it was here.

        Raises VerificationError if it is too large or refers to something missing, UsageError for another media type.
        """
        if self._holds(manifest):
            return False
        if len(manifest.data) > DOCUMENT_LIMIT:
            raise VerificationError("document-too-large", f"{manifest.digest} has more than {DOCUMENT_LIMIT} bytes")
        self.require_complete(manifest)
        self.write(manifest, sync=False)
        return True

    def write(self, manifest: Manifest, *, sync: bool = True) -> None:
        """Write a manifest's file unless it is there intact; a corrupt one is moved to quarantine.

        Without `sync` the folder is synced by `move`, before a tag leads to the manifest.
        """
        path = self.manifest_file(manifest.descriptor)
        if not self._holds(manifest):
            if os.path.lexists(path):
                set_aside(self.place.root, path, stays=True)
            replace_file(manifest.data, path, self.place.drafts, sync=sync)

    def _holds(self, manifest: Manifest) -> bool:
        """Return whether the manifest's file is here with exactly these bytes."""
        file = open_without_links(self.place.root, self.manifest_file(manifest.descriptor))
        if file is None:
            return False
        with file:
            return file.read(len(manifest.data) + 1) == manifest.data

    def require(self, manifest: Manifest) -> None:
        """Check that a manifest is here with everything that a client would pull with it.

        Raises VerificationError `manifest-missing`, `blob-missing`.
        """
        if not self.manifest_file(manifest.descriptor).exists():
            raise VerificationError("manifest-missing", f"manifest {manifest.digest} not found", place=self.name)
        self.require_complete(manifest)

    def require_complete(self, manifest: Manifest) -> None:
        """See `mirror.references.require_complete`."""
        require_complete(manifest, self.name, lambda one: regular_file(self.place.blob(one)) is not None, self.read)

    # --- tags

    def target(self, tag: str) -> Digest | None:
        """Return the digest that a tag points to; None if it does not exist."""
        try:
            return named_digest((self.tags / tag).readlink().name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # missing, or no link: no publication puts that there
                return None
            raise

    def tagged(self, tag: str) -> Manifest | None:
        """Return the manifest that a tag points to; None if there is none.

        Tried again if the tag moves and its former manifest is pruned meanwhile.
        """
        for _ in range(_ATTEMPTS):
            digest = self.target(tag)
            manifest = self.read(digest) if digest else None
            if digest is None or manifest is not None:
                return manifest
        return None

    def tag_names(self) -> tuple[str, ...]:
        """Return all tags, sorted."""
        try:
            return tuple(sorted(path.name for path in self.tags.iterdir() if TAG.fullmatch(path.name)))
        except FileNotFoundError:
            return ()

    def move(self, tag: str, descriptor: Descriptor, *, listing: bool = True) -> None:
        """Point a tag at a manifest that is here, in one step.

        Blobs and manifests are synced to disk before. A tag that points there already is not touched. Without `listing`
        the caller lists the tags, after several moves.
        """
        destination = f"../_manifests/{manifest_file_name(descriptor)}"
        path = self.tags / tag
        link = path.is_symlink()
        if not link or str(path.readlink()) != destination:
            if self.target(tag) is None and os.path.lexists(path):  # what it led to is not known
                put_tag_aside(self.place.root, self.name, path)
            sync_names(self.place.blobs)
            sync_names(self.manifests)
            replace_symlink(destination, path, self.place.drafts, self.place.clock())
        if listing:
            self._list_changed_tags()

    def drop(self, *tags: str) -> None:
        """Remove tags, and then list those that are left."""
        for tag in tags:
            (self.tags / tag).unlink(missing_ok=True)
        if tags:
            sync_names(self.tags)
            self._list_changed_tags()

    def _list_changed_tags(self) -> None:
        """List the tags now, or at the end of `moving` in this process."""
        if not write_lock.is_moving(self.folder):
            self.list_tags()

    def list_tags(self) -> None:
        """Write `_tags.json` if it does not list exactly the tags that exist."""
        self.place.write_list(self.folder / "_tags.json", listed_tags(self.name, self.tag_names()))

    # --- referrers

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest; without a whole index, what is here."""
        listed = self.listed_referrers(subject)
        return attached_manifests(self.manifests, subject) if listed is None else listed

    def listed_referrers(self, subject: Digest) -> tuple[Referrer, ...] | None:
        """Return what the referrers index of `subject` lists; None if damaged, malformed or no link."""
        tag = fallback_tag(subject)
        with contextlib.suppress(VerificationError):
            index = self.tagged(tag)
            return listed_referrers(index) if index else None if os.path.lexists(self.tags / tag) else ()
        return None

    def attach(self, *manifests: Manifest) -> bool:
        """Add manifests that are here, of one subject, to its referrers index; or make it anew.

        An entry that says something else than its manifest is replaced. Returns False if all were listed.
        """
        subjects = {references(one).subject for one in manifests}
        subject = subjects.pop() if len(subjects) == 1 else None
        if subject is None:
            raise ValueError("manifests to attach need one subject")
        whole = self.listed_referrers(subject)
        listed = attached_manifests(self.manifests, subject) if whole is None else whole
        own = {one.digest: referrer_of(one) for one in manifests}
        kept = [one for one in listed if own.get(one.descriptor.digest, one) == one]
        added = [one for one in own.values() if one not in kept]
        if not added and whole is not None:
            self._list_changed_tags()
            return False
        self._point_referrers(subject, (*kept, *added))
        return True

    def detach(self, manifest: Manifest) -> None:
        """Remove a manifest from its subject's referrers index; an empty index is removed."""
        said = readable_references(manifest)
        subject = said.subject if said is not None else None
        listed = self.referrers(subject) if subject else ()
        rest = tuple(one for one in listed if one.descriptor.digest != manifest.digest)
        if subject is None or rest == listed:
            return
        if rest:
            self._point_referrers(subject, rest)
        else:
            self.drop(fallback_tag(subject))

    def _point_referrers(self, subject: Digest, listed: tuple[Referrer, ...]) -> None:
        index = referrers_index(listed)
        self.write(index, sync=False)
        self.move(fallback_tag(subject), index.descriptor)
