"""Layout of the folders of a mirror that is a directory.

    relbuild-mirror.json                    what this is, and as which host it is pulled from
    nginx.conf, rsync.sh                    how it is served and copied
    catalog.json                            what `/v2/_catalog` answers
    blobs/sha256/HEX                        every blob, once for all repositories
    repositories/NAME/_manifests/HEX.KIND   a manifest; its kind is a word for its media type (`references.KINDS`)
    repositories/NAME/_tags/TAG             a symbolic link to ../_manifests/HEX.KIND
    repositories/NAME/_tags.json            what `/v2/NAME/tags/list` answers
    repositories/NAME/_lock                 held by whoever moves a tag of the repository
    repositories/NAME/_moves                held by whoever looks where tags point, moves them and signs that
    .lock/                                  held by whoever publishes, prunes or adds a repository
    .incoming/                              drafts
    .quarantine/STAMP/                      what was pruned and can be brought back
    .quarantine/rotten/                     files whose bytes were not what their names say
    .scrub/                                 what is known to be whole (`reuse`), and how far a scrub has come

No part of a repository's name begins with `_` or `.` (distribution-spec 1.1), so `a` and `a/b` can both be
repositories. A tag tells digest and media type by its link's text alone, so it is moved by one rename. The list of
referrers of an image is what the tag `sha256-HEX` points to, for clients with the API and for those without.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.atomic_files import (
    file_locked,
    make_drafts,
    make_folder,
    open_without_links,
    replace_file,
    replace_symlink,
    sweep_drafts,
    sync_names,
)
from pipeline.mirror.backends.directory import write_lock
from pipeline.mirror.known_blobs import KnownInFolder, set_aside
from pipeline.mirror.protocol import TAG
from pipeline.mirror.references import (
    MANIFEST_KINDS,
    fallback_tag,
    listed_referrers,
    listed_repositories,
    listed_tags,
    references,
    referrer_of,
    referrers_index,
    require_complete,
)
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci.image_manifest import DOCUMENT_LIMIT

_MEDIA_TYPES = MappingProxyType({kind: media_type for media_type, kind in MANIFEST_KINDS.items()})
_FILE = re.compile(r"([0-9a-f]{64})\.([a-z-]+)")

_ATTEMPTS = 5
"""How often a tag is followed again when what it pointed to was pruned meanwhile."""


@dataclass(frozen=True, slots=True)
class MirrorPaths:
    """The folders of one mirror. `clock` tells seconds since the epoch."""

    root: Path
    clock: Callable[[], float]

    @property
    def blobs(self) -> Path:
        """The folder of all blobs."""
        return self.root / "blobs" / "sha256"

    @property
    def drafts(self) -> Path:
        """The folder of what is not whole yet."""
        return self.root / ".incoming"

    @property
    def repositories(self) -> Path:
        """The folder of all repositories."""
        return self.root / "repositories"

    def blob(self, digest: Digest) -> Path:
        """The path of a blob, whether it is there or not."""
        return self.blobs / digest.hex

    def paths(self, name: str) -> RepositoryPaths:
        """A repository's folders. `name` was checked."""
        return RepositoryPaths(self, name)

    @property
    def known(self) -> KnownInFolder:
        """The record of the blobs that are known to be intact."""
        return KnownInFolder(self.root / ".scrub" / "blobs", self.drafts, self.clock)

    def make(self) -> None:
        """Make the folders that are missing."""
        for folder in (self.blobs, self.repositories, self.root / ".lock"):
            make_folder(folder)
        make_drafts(self.drafts)

    def publishing(self) -> contextlib.AbstractContextManager[None]:
        """Held, together with others, by whoever adds something: nothing is pruned meanwhile."""
        make_folder(self.root / ".lock")
        return write_lock.hold_shared(self.root / ".lock")

    def pruning(self, patience: float) -> contextlib.AbstractContextManager[None]:
        """Held by whoever prunes, alone; those who begin meanwhile wait. Raises TimeoutError after
        `patience` seconds."""
        make_folder(self.root / ".lock")
        return write_lock.hold_exclusive(self.root / ".lock", patience)

    def cataloguing(self) -> contextlib.AbstractContextManager[None]:
        """Held, alone, by whoever adds a repository."""
        return file_locked(self.root / ".lock" / "catalog")

    def names(self) -> tuple[str, ...]:
        """All repositories, sorted."""
        found = []
        for folder, inner, _ in os.walk(self.repositories):
            if "_tags" in inner:
                found.append(Path(folder).relative_to(self.repositories).as_posix())
            inner[:] = [name for name in inner if not name.startswith(("_", "."))]
        return tuple(sorted(found))

    def sweep(self) -> int:
        """Remove drafts that killed processes left; returns how many."""
        return sweep_drafts(self.drafts, shared=False)


@dataclass(frozen=True, slots=True)
class RepositoryPaths:
    """The folders of one repository. What changes a tag here wants `locked` held."""

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
        """Make the repository; its lock is made last.

        Where there is a lock, the catalogue names the repository.
        """
        if (self.folder / "_lock").exists():
            return
        with self.place.cataloguing():
            make_folder(self.manifests)
            make_folder(self.tags)
            replace_file(listed_repositories(self.place.names()), self.place.root / "catalog.json", self.place.drafts)
            self.list_tags()
            (self.folder / "_lock").touch(0o600)
            sync_names(self.folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else moves a tag of this repository meanwhile."""
        with file_locked(self.folder / "_lock"):
            yield

    def moving(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else moves and signs tags of this repository; `locked` is taken within."""
        return file_locked(self.folder / "_moves")

    # --- manifests

    def manifest_file(self, descriptor: Descriptor) -> Path:
        """The path of a manifest, whether it is there or not."""
        return self.manifests / _file_name(descriptor)

    def find(self, digest: Digest) -> Path | None:
        """The file of a manifest that is here."""
        for kind in _MEDIA_TYPES:
            path = self.manifests / f"{digest.hex}.{kind}"
            if path.exists():
                return path
        return None

    def read(self, digest: Digest) -> Manifest | None:
        """A manifest, verified. Raises VerificationError `digest-mismatch`."""
        path = self.find(digest)
        if path is None:
            return None
        file = open_without_links(self.place.root, path)
        if file is None:
            return None
        with file:
            data = file.read(DOCUMENT_LIMIT + 1)
        manifest = Manifest(_MEDIA_TYPES[path.suffix[1:]], data)
        if manifest.digest != digest:
            raise VerificationError(
                "digest-mismatch",
                f"the content of {digest} does not match its digest",
                place=str(path),
                hint="`relbuild scrub` moves it to quarantine and restores it from a good copy",
            )
        return manifest

    def put(self, manifest: Manifest) -> bool:
        """Put a manifest; return False if it was here.

        Raises VerificationError when it is too large, of a media type that cannot be served, or refers to what is not
        here.
        """
        if self._holds(manifest):
            return False
        if len(manifest.data) > DOCUMENT_LIMIT:
            raise VerificationError("document-too-large", f"{manifest.digest} has more than {DOCUMENT_LIMIT} bytes")
        self.require_complete(manifest)
        self.write(manifest)
        return True

    def write(self, manifest: Manifest) -> None:
        """Write a manifest's file where it does not stand already, whole; a rotten one is put aside."""
        path = self.manifest_file(manifest.descriptor)
        if not self._holds(manifest):
            if os.path.lexists(path):
                set_aside(self.place.root, path, stays=True)
            replace_file(manifest.data, path, self.place.drafts)

    def _holds(self, manifest: Manifest) -> bool:
        """Return whether a manifest's file stands here, byte for byte."""
        file = open_without_links(self.place.root, self.manifest_file(manifest.descriptor))
        if file is None:
            return False
        with file:
            return file.read(len(manifest.data) + 1) == manifest.data

    def require(self, manifest: Manifest) -> None:
        """Check that a manifest, and all that a client would pull with it, is here.

        Raises VerificationError `manifest-missing` or `blob-missing` if anything is not.
        """
        if not self.manifest_file(manifest.descriptor).exists():
            raise VerificationError("manifest-missing", f"manifest {manifest.digest} not found", place=self.name)
        self.require_complete(manifest)

    def require_complete(self, manifest: Manifest) -> None:
        """See `mirror.references.require_complete`."""
        require_complete(manifest, self.name, lambda digest: self.place.blob(digest).exists(), self.read)

    # --- tags

    def target(self, tag: str) -> Digest | None:
        """The digest that a tag points to; None if it does not exist."""
        try:
            found = _FILE.fullmatch((self.tags / tag).readlink().name)
        except FileNotFoundError:
            return None
        return Digest(found[1]) if found else None

    def tagged(self, tag: str) -> Manifest | None:
        """Return the manifest that a tag points to; None if there is none.

        It is found also while the tag moves and what it pointed to is pruned.
        """
        for _ in range(_ATTEMPTS):
            digest = self.target(tag)
            manifest = self.read(digest) if digest else None
            if digest is None or manifest is not None:
                return manifest
        return None

    def tag_names(self) -> tuple[str, ...]:
        """All tags, sorted."""
        try:
            return tuple(sorted(path.name for path in self.tags.iterdir() if TAG.fullmatch(path.name)))
        except FileNotFoundError:
            return ()

    def move(self, tag: str, descriptor: Descriptor) -> None:
        """Point a tag at a manifest that is here, in one step.

        All that the manifest needs has reached the disk before that. A tag that points there already is not touched.
        """
        destination = f"../_manifests/{_file_name(descriptor)}"
        path = self.tags / tag
        if not path.is_symlink() or str(path.readlink()) != destination:
            sync_names(self.place.blobs)
            sync_names(self.manifests)
            replace_symlink(destination, path, self.place.drafts, self.place.clock())
        self.list_tags()

    def drop(self, tag: str) -> None:
        """Remove a tag."""
        (self.tags / tag).unlink(missing_ok=True)
        sync_names(self.tags)
        self.list_tags()

    def list_tags(self) -> None:
        """Bring the list of tags up to date, also one that a killed process left behind."""
        wanted = listed_tags(self.name, self.tag_names())
        path = self.folder / "_tags.json"
        if not path.exists() or path.read_bytes() != wanted:
            replace_file(wanted, path, self.place.drafts)

    # --- referrers

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest."""
        index = self.tagged(fallback_tag(subject))
        return listed_referrers(index) if index else ()

    def attach(self, manifest: Manifest) -> bool:
        """List a manifest that is here among the referrers of its subject; False if it was."""
        said = references(manifest)
        if said.subject is None:
            raise ValueError(f"{manifest.digest} has no subject")
        listed = self.referrers(said.subject)
        if any(one.descriptor.digest == manifest.digest for one in listed):
            self.list_tags()
            return False
        self._point_referrers(said.subject, (*listed, referrer_of(manifest)))
        return True

    def detach(self, manifest: Manifest) -> None:
        """The opposite of `attach`; without its last entry a list goes."""
        subject = references(manifest).subject
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
        self.write(index)
        self.move(fallback_tag(subject), index.descriptor)


def parse_manifest_path(path: Path) -> tuple[Digest, str] | None:
    """A file among manifests → digest and media type; None if it is none."""
    found = _FILE.fullmatch(path.name)
    if found is None or found[2] not in _MEDIA_TYPES:
        return None
    return Digest(found[1]), _MEDIA_TYPES[found[2]]


def _file_name(descriptor: Descriptor) -> str:
    if descriptor.media_type not in MANIFEST_KINDS:
        raise UsageError(
            "media-type-unservable",
            f"a directory mirror cannot serve {descriptor.digest} of type {descriptor.media_type[:100]}",
            hint="publish OCI images and indexes; convert others first",
        )
    return f"{descriptor.digest.hex}.{MANIFEST_KINDS[descriptor.media_type]}"
