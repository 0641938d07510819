"""An OCI layout as a mirror: what is carried across an air gap (image-spec 1.1, image-layout.md).

A layout is one repository. Its index.json lists what has a name (`org.opencontainers.image.ref.name`: a tag), and,
without a name, what speaks of others, as oras does; the referrers of something are found by reading what is listed.
index.json is replaced in one step, under a lock on `oci-layout`, which never changes. Nothing is collected here: what
lost its name stays listed without one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pipeline.digest import Digest, canonical_json
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.gate import Cleared
from pipeline.mirror.references import fallback_tag, media_type_of, references, referrer_of
from pipeline.mirror.repository import NAME, TAG, Arrival, Overtaken, is_auxiliary, unheeded
from pipeline.mirror.reuse import KnownInRun, bring_blob, is_whole, set_aside
from pipeline.mirror.whole import (
    check_verified,
    fetch_verified,
    locked,
    make_folder,
    open_unlinked,
    reaching,
    read_verified,
    sweep_drafts,
    sync_folder,
    write_whole,
)
from pipeline.model.artifact import Manifest, Referrer
from pipeline.model.image import Descriptor
from pipeline.oci import blob_path, media_types
from pipeline.oci.image import DOCUMENT_LIMIT, Reader, descriptor_json, tag_of
from pipeline.oci.layout import LAYOUT_FILE, read_document
from pipeline.store import Store

_DRAFTS = "ingest"
"""The folder that oras uses for the same."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A descriptor of index.json, and its JSON text, which may say more than is known here."""

    descriptor: Descriptor
    text: str

    @property
    def tag(self) -> str:
        """The tag that it is listed by; empty if by none. Some name `HOST/NAME:TAG`."""
        name = dict(self.descriptor.annotations).get(media_types.REF_NAME, "")
        tag = name if TAG.fullmatch(name) else tag_of(name)
        return tag if TAG.fullmatch(tag) else ""

    def named(self, tag: str) -> _Entry:
        """The same under a tag, or under none."""
        value = json.loads(self.text)
        notes = {key: note for key, note in self.descriptor.annotations if key != media_types.REF_NAME}
        if tag:
            notes[media_types.REF_NAME] = tag
        value.pop("annotations", None)
        if notes:
            value["annotations"] = notes
        return _entry(value)


@dataclass(frozen=True, slots=True)
class LayoutMirror:
    """A mirror of one repository. `identity`: what is signed as its name."""

    path: Path
    identity: str
    known: KnownInRun = field(default_factory=KnownInRun, compare=False)

    @property
    def url(self) -> str:
        """`oci:PATH`."""
        return f"oci:{self.path}"

    def repository(self, name: str) -> LayoutRepository:
        """The layout's one repository, whatever it is called. Raises UsageError `repository-name`."""
        if name and not NAME.fullmatch(name):
            raise UsageError("repository-name", f"'{name[:80]}' cannot be a repository's name", place=self.url)
        return LayoutRepository(self.path, self.identity, self.known)

    def repositories(self) -> tuple[str, ...]:
        """One, without a name."""
        return ("",)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing is pruned from a layout."""
        yield

    @property
    def blobs(self) -> Path:
        """The folder of all blobs, manifests among them."""
        return self.path / "blobs" / "sha256"

    @property
    def drafts(self) -> Path:
        """The folder of what is not whole yet."""
        return self.path / _DRAFTS

    def entries(self) -> tuple[Descriptor, ...]:
        """The descriptors in index.json. Raises VerificationError, UsageError `not-a-layout`."""
        return tuple(entry.descriptor for entry in LayoutRepository(self.path, self.identity)._entries())

    def sweep(self) -> int:
        """Remove drafts that killed processes left; returns how many."""
        make_folder(self.drafts)
        return sweep_drafts(self.drafts, shared=True)


@dataclass(frozen=True, slots=True)
class LayoutRepository:
    """What is in a layout: `pipeline.mirror.repository.Repository`."""

    path: Path
    identity: str
    known: KnownInRun = field(default_factory=KnownInRun, compare=False)

    @property
    def name(self) -> str:
        """None: there is but one."""
        return ""

    @property
    def url(self) -> str:
        """`oci:PATH`."""
        return f"oci:{self.path}"

    # --- reading

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """The manifest or index with a digest, or that a tag points to, verified; None if there is none."""
        with reaching(self.url):
            digest = self._resolve(reference) if isinstance(reference, str) else reference
            return self._read(digest) if digest else None

    def resolve(self, tag: str) -> Digest | None:
        """What a tag points to now; None if it does not exist."""
        with reaching(self.url):
            return self._resolve(tag)

    def tags(self) -> tuple[str, ...]:
        """All tags, sorted, auxiliary ones too."""
        with reaching(self.url):
            return tuple(sorted({entry.tag for entry in self._entries() if entry.tag}))

    def has_blob(self, digest: Digest) -> bool:
        """Is the blob here?"""
        with reaching(self.url):
            return blob_path(self.path, digest).is_file()

    def open_blob(self, digest: Digest) -> BinaryIO | None:
        """A blob that is here, to be served: no link is followed below the layout's folder."""
        with reaching(self.url):
            return open_unlinked(self.path, blob_path(self.path, digest))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob, verified. Raises VerificationError."""
        with reaching(self.url):
            return read_verified(blob_path(self.path, descriptor.digest), descriptor)

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Bring a blob into the store, verified. Raises VerificationError."""
        with reaching(self.url):
            fetch_verified(blob_path(self.path, descriptor.digest), descriptor, store)

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = unheeded) -> None:
        """Read a blob to its end and keep nothing. Raises VerificationError."""
        with reaching(self.url):
            check_verified(blob_path(self.path, descriptor.digest), descriptor, advance)

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """What speaks of `subject`, sorted by digest: of what is listed in index.json, and in a fallback index that
        was copied here."""
        with reaching(self.url):
            entries = self._entries()
            listed = {entry.descriptor.digest for entry in entries}
            fallback = self._resolve(fallback_tag(subject))
            index = self._read(fallback) if fallback else None
            if index is not None:
                listed |= {entry.digest for entry in references(index).manifests}
            found = (self._read(digest) for digest in sorted(listed))
            return tuple(referrer_of(one) for one in found if one and references(one).subject == subject)

    # --- writing

    def put_blob(self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = ()) -> Arrival:
        """Make sure that a blob is here. Raises VerificationError if `content` is not what `descriptor` says."""
        with reaching(self.url):
            make_folder(self._drafts)
            target = blob_path(self.path, descriptor.digest)
            return bring_blob(descriptor, content, target, root=self.path, drafts=self._drafts, known=self.known)

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest."""
        with reaching(self.url):
            target = blob_path(self.path, descriptor.digest)
            return is_whole(self.path, target, descriptor.digest, descriptor.size, self.known)

    def put_manifest(self, manifest: Manifest) -> bool:
        """Put a manifest or index by its digest; False if it was there. Raises VerificationError `blob-missing`,
        `manifest-missing` if something that it refers to is not here."""
        with reaching(self.url):
            return self._put(manifest)

    def attach(self, manifest: Manifest) -> bool:
        """Put a manifest that has a `subject`, and list it without a name; False if that was so before."""
        with self._changing():
            if references(manifest).subject is None:
                raise ValueError(f"{manifest.digest} has no subject")
            new = self._put(manifest)
            entries = self._entries()
            if any(entry.descriptor.digest == manifest.digest for entry in entries):
                return new
            listed = referrer_of(manifest)
            self._write([*entries, _entry(descriptor_json(listed.descriptor) | {"artifactType": listed.artifact_type})])
            return True

    def put_auxiliary(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        """Point an auxiliary tag at a manifest, which is put. Raises ValueError, Overtaken."""
        if not TAG.fullmatch(tag) or not is_auxiliary(tag):
            raise ValueError(f"{tag} is not an auxiliary tag")
        with self._changing():
            self._expect(tag, expected)
            self._put(manifest)
            self._move(tag, manifest.descriptor)

    def point(self, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        """Point a tag at what was cleared. Nothing is written if it points there already. Raises ValueError,
        Overtaken; VerificationError `manifest-missing`, `blob-missing` if anything of it is not here."""
        if not TAG.fullmatch(tag) or is_auxiliary(tag):
            raise ValueError(f"{tag} is no tag to pull by")
        cleared.refuse_other(tag)
        with self._changing():
            self._expect(tag, expected)
            if not blob_path(self.path, cleared.manifest.digest).is_file():
                raise VerificationError("manifest-missing", f"{cleared.manifest.digest} is not here", place=self.url)
            self._require_whole(cleared.manifest)
            self._move(tag, cleared.manifest.descriptor)

    def overtaken(self, moved: Mapping[str, Digest]) -> tuple[str, ...]:
        """None: whoever moves a tag holds the lock and looks what it points to."""
        return ()

    # --- removing

    def remove_tag(self, tag: str, expected: Digest) -> None:
        """Remove a tag that points to `expected`; what it named stays listed. Raises Overtaken."""
        with self._changing():
            self._expect(tag, expected)
            self._write(_tidied(entry.named("") if entry.tag == tag else entry for entry in self._entries()))

    def remove_manifest(self, digest: Digest) -> None:
        """Remove a manifest or index, and all that index.json says of it. Its blobs stay."""
        with self._changing():
            entries = self._entries()
            rest = [entry for entry in entries if entry.descriptor.digest != digest]
            if len(rest) != len(entries):
                self._write(rest)
            if self._read(digest) is not None:
                blob_path(self.path, digest).unlink(missing_ok=True)

    def remove_referrer(self, digest: Digest) -> None:
        """Remove a manifest that speaks of another: a lock keeps those apart who do."""
        self.remove_manifest(digest)

    # --- index.json

    @property
    def _drafts(self) -> Path:
        return self.path / _DRAFTS

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with reaching(self.url), locked(self.path / "oci-layout"):
            make_folder(self._drafts)
            sweep_drafts(self._drafts, shared=True)
            yield

    def _entries(self) -> list[_Entry]:
        data = read_document(self.path / "index.json")
        Reader.parse(data, "index.json").get("manifests").items()  # An array or nothing, or this says what is wrong.
        return [_entry(value) for value in json.loads(data).get("manifests") or ()]

    def _write(self, entries: Iterable[_Entry]) -> None:
        """Replace index.json; what else it says is kept."""
        document = json.loads(read_document(self.path / "index.json"))
        document["manifests"] = [json.loads(entry.text) for entry in entries]
        data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        if len(data) > DOCUMENT_LIMIT:
            raise VerificationError("document-too-large", f"index.json would have more than {DOCUMENT_LIMIT} bytes")
        sync_folder(self.path / "blobs" / "sha256")
        write_whole(data, self.path / "index.json", self._drafts)

    def _resolve(self, tag: str) -> Digest | None:
        return next((entry.descriptor.digest for entry in self._entries() if tag and entry.tag == tag), None)

    def _expect(self, tag: str, expected: Digest | None) -> None:
        found = self._resolve(tag)
        if found != expected:
            raise Overtaken(tag, found)

    def _move(self, tag: str, descriptor: Descriptor) -> None:
        entries = self._entries()
        if self._resolve(tag) == descriptor.digest:
            return
        known = next((entry for entry in entries if entry.descriptor.digest == descriptor.digest), None)
        moved = (known or _entry(descriptor_json(descriptor))).named(tag)
        others = (entry.named("") if entry.tag == tag else entry for entry in entries)
        self._write(_tidied([*others, moved]))

    # --- manifests

    def _read(self, digest: Digest) -> Manifest | None:
        """A blob that is a manifest, verified."""
        path = blob_path(self.path, digest)
        file = open_unlinked(self.path, path)
        if file is None:
            return None
        with file:
            data = file.read(DOCUMENT_LIMIT + 1)
        media_type = media_type_of(data) if len(data) <= DOCUMENT_LIMIT else None
        if media_type is None:
            return None
        if Digest.of(data) != digest:
            raise VerificationError("digest-mismatch", f"{digest} has other bytes", place=str(path))
        return Manifest(media_type, data)

    def _put(self, manifest: Manifest) -> bool:
        path = blob_path(self.path, manifest.digest)
        if is_whole(self.path, path, manifest.digest, len(manifest.data), self.known):
            return False
        if media_type_of(manifest.data) != manifest.media_type:
            raise VerificationError(
                "media-type-mismatch", f"{manifest.digest} is not the {manifest.media_type} that it is said to be"
            )
        self._require_whole(manifest)
        make_folder(self._drafts)
        if os.path.lexists(path):
            set_aside(self.path, path, stays=True)
        write_whole(manifest.data, path, self._drafts)
        return True

    def _require_whole(self, manifest: Manifest) -> None:
        said = references(manifest)
        for blob in said.blobs:
            if not blob_path(self.path, blob.digest).is_file():
                raise VerificationError("blob-missing", f"{manifest.digest} needs {blob.digest}", place=self.url)
        for entry in said.manifests:
            inner = self._read(entry.digest)
            if inner is None:
                raise VerificationError("manifest-missing", f"{manifest.digest} needs {entry.digest}", place=self.url)
            self._require_whole(inner)


def open_layout(path: Path, *, create: bool, identity: str | None = None) -> LayoutMirror:
    """Open the layout at `path`; with `create`, make it where nothing or an empty folder is. `identity`: what
    signatures name it by, `localhost/FOLDER` if not given.

    Raises UsageError `not-a-layout`, EnvironmentLacking `mirror-unreachable`.
    """
    root = path.absolute()
    with reaching(f"oci:{root}"):
        if not is_layout(root):
            if not create or (root.exists() and (not root.is_dir() or _foreign(root))):
                raise UsageError(
                    "not-a-layout",
                    f"{root} is not an image layout" + (", nor empty" if create else ": it has no oci-layout"),
                    place=str(root),
                    hint="name a layout" + (" or a new directory" if create else ""),
                )
            make_folder(root / "blobs" / "sha256")
            make_folder(root / _DRAFTS)
            empty = {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": []}
            write_whole(canonical_json(empty), root / "index.json", root / _DRAFTS)
            write_whole(LAYOUT_FILE, root / "oci-layout", root / _DRAFTS)
    return LayoutMirror(root, identity or f"localhost/{root.name}")


def is_layout(path: Path) -> bool:
    """Does an OCI layout stand here?"""
    return (path / "oci-layout").is_file()


def _foreign(root: Path) -> bool:
    """Does it hold more than what a creation that was killed leaves?"""
    return not {path.name for path in root.iterdir()} <= {"blobs", _DRAFTS, "index.json"}


def _entry(value: dict[str, object]) -> _Entry:
    return _Entry(Reader(value, "index.json").descriptor(), json.dumps(value, sort_keys=True))


def _tidied(entries: Iterable[_Entry]) -> list[_Entry]:
    """Without entries that have no name while another of the same digest is there, and each once."""
    every = list(dict.fromkeys(entries))
    named = {entry.descriptor.digest for entry in every if entry.tag}
    return [entry for entry in every if entry.tag or entry.descriptor.digest not in named]
