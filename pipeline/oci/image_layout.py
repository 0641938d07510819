"""Write an image or an index to an OCI layout, with layers from the store; read it back.

image-spec 1.1, image-layout.md.

A layout is made beside its place, synced, and renamed in one step: it is complete or absent, also after a power cut.
Its blobs are copies that share no inode with the store's (blocks, where the file system can), so that writes into it
damage nothing else. Unchanged blobs are recognised by their files' stamps and not copied again: a layout that is
replaced hands the files of layers that stay on to the new one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from pipeline.atomic_folders import folder_draft, put_folder, sweep_folder_drafts
from pipeline.beneath import NotRegular, TooLarge, read_unlogged
from pipeline.clone import clone_file
from pipeline.digest import Digest, canonical_json, identity
from pipeline.errors import STORE_DAMAGE_HINT, RelbuildError, UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.oci.image_manifest import (
    DOCUMENT_LIMIT,
    JsonReader,
    descriptor_json,
    make_index,
    parse_image,
    parse_index,
    platform_json,
)
from pipeline.oci.layout_place import refuse_other_content, refuse_other_product
from pipeline.store import Store, UnnamedCopies, failing_at
from pipeline.store.blobs import Stamp, blob_stamp, stamp_of_whole

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


def blob_path(layout: Path, digest: Digest) -> Path:
    """Return the path of a blob in a layout."""
    return layout / "blobs" / "sha256" / digest.hex


def index_bytes(image: Image) -> bytes:
    """Return a layout's index.json with one manifest, whose ref name is the image's reference."""
    entry = descriptor_json(image.manifest_descriptor)
    entry["platform"] = platform_json(image.config)
    entry["annotations"] = {media_types.REF_NAME: image.reference}
    return canonical_json({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": [entry]})


def write_layout(image: Image, *, store: Store, target: Path) -> None:
    """Write `image` to `target` as an OCI layout, with its layers from the store.

    A layout there is replaced in one step; if it is the same image, it is not touched.

    Raises VerificationError `blob-missing` or `blob-damaged` for a layer, UsageError `not-a-layout` if `target` is
    neither empty nor a layout, `layout-of-another` if it is that of another product.
    """
    _write([image], index_bytes(image), (), store=store, target=target)


@contextmanager
def writing_layout(image: Image, *, store: Store, target: Path, copies: UnnamedCopies | None = None) -> Iterator[None]:
    """Write a layout as `write_layout` does, its blobs copied beside the block.

    Those that `copies` has got are not copied again. It is put in place at the end of the block; an error in the block
    leaves the former layout as it was, and ends the copying within a piece. Raises as `write_layout`, when the block
    has ended.
    """
    layout = replace(_NewLayout.of([image], index_bytes(image), (), store, target), copies=copies)
    unwanted = threading.Event()

    def go_on() -> None:
        if unwanted.is_set():
            raise CancelledError("the layout is not wanted any more")

    # Last in, first out: whatever ends the block, the thread is told of it before it is waited for.
    with ExitStack() as held, ThreadPoolExecutor(1, "relbuild-layout") as beside, ExitStack() as ending:
        ending.callback(unwanted.set)
        drafted = beside.submit(layout.draft, held, go_on)
        yield
        layout.put(drafted.result())


def write_index_layout(images: Sequence[Image], *, store: Store, target: Path) -> Manifest:
    """Write images of several architectures to `target` as an OCI layout with one index.

    Returns the index. index.json names it alone, and clients choose by platform. Raises as `write_layout`.
    """
    index = make_index(images)
    entry = descriptor_json(index.descriptor)
    entry["annotations"] = {media_types.REF_NAME: images[0].reference}
    outer = canonical_json({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": [entry]})
    _write(images, outer, (index,), store=store, target=target)
    return index


def _write(
    images: Sequence[Image], index_json: bytes, indexes: Sequence[Manifest], *, store: Store, target: Path
) -> None:
    layout = _NewLayout.of(images, index_json, indexes, store, target)
    with ExitStack() as held:
        layout.put(layout.draft(held))


@dataclass(frozen=True, slots=True)
class _NewLayout:
    """A product's layout to be put at `target`: its documents, and its layers with sizes."""

    product: str
    index_json: bytes
    documents: Mapping[Digest, bytes]
    layers: Mapping[Digest, int]
    store: Store
    target: Path
    copies: UnnamedCopies | None = None

    @classmethod
    def of(
        cls,
        images: Sequence[Image],
        index_json: bytes,
        indexes: Sequence[Manifest],
        store: Store,
        target: Path,
    ) -> Self:
        documents = {image.config_descriptor.digest: image.config_bytes for image in images}
        documents |= {image.manifest_descriptor.digest: image.manifest_bytes for image in images}
        documents |= {index.descriptor.digest: index.data for index in indexes}
        layers = {layer.blob.digest: layer.blob.size for image in images for layer in image.layers}
        return cls(images[0].name, index_json, documents, layers, store, target)

    def draft(self, held: ExitStack, go_on: Callable[[], None] = lambda: None) -> Path | None:
        """Make the layout beside its place, until `held` is closed; return None if it is there.

        `go_on` is called before each piece that is copied, and raises if no more is wanted.
        """
        store, target = self.store, self.target
        go_on()
        sweep_folder_drafts(target)
        if _stands(self.index_json, self.documents, self.layers, store, target):
            return None
        refuse_other_content(target)
        refuse_other_product(target, self.product)
        target.parent.mkdir(parents=True, exist_ok=True)
        placed: dict[Digest, Stamp | None] = {}
        held.callback(self._note_placed, placed)
        draft = held.enter_context(folder_draft(target))
        blobs = draft / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for digest, size in self.layers.items():
            go_on()
            _require_whole(store, digest, size)
            place = blobs / digest.hex
            if not (_keep(store, blob_path(target, digest), digest, place) or self._name(digest, size, place)):
                _copy(store, digest, place, go_on)
            placed[digest] = blob_stamp(place)
        for digest, data in self.documents.items():
            (blobs / digest.hex).write_bytes(data)
        (draft / "oci-layout").write_bytes(LAYOUT_FILE)
        (draft / "index.json").write_bytes(self.index_json)
        draft.chmod(0o755)
        store.settle()
        return draft

    def _name(self, digest: Digest, size: int, place: Path) -> bool:
        return self.copies is not None and self.copies.name(digest, size, place)

    def put(self, draft: Path | None) -> None:
        """Put the draft in place, if there is one."""
        if draft is not None:
            with failing_at(self.target):
                put_folder(draft, self.target)

    def _note_placed(self, placed: Mapping[Digest, Stamp | None]) -> None:
        """Record the stamps of layers once the draft, or the former layout, is gone.

        The change time of a kept file is another with each name that it gets or loses, also where nothing was put in
        place.
        """
        with suppress(OSError, RelbuildError):  # What is not recorded is hashed the next time.
            for digest, stamp in placed.items():
                found = blob_stamp(blob_path(self.target, digest))
                if found is not None and stamp is not None and found[:3] == stamp[:3]:
                    note_layer(self.store, blob_path(self.target, digest), digest, found)


def read_layout(path: Path) -> Image:
    """Read the image of a layout with one image.

    Manifest and config are verified, layers are not. Raises UsageError `not-a-layout`, `several-images`,
    `not-an-image`, VerificationError.
    """
    index = JsonReader.parse(read_document(path / "index.json"), "index.json")
    manifests = index.get("manifests").items()
    if len(manifests) > 1:
        raise UsageError(
            "several-images",
            f"'{path}' lists {len(manifests)} manifests (images, and what is attached to them), not one image",
            place=str(path),
            hint=f"name an image by its tag, where a reference is taken: oci:{path}:TAG",
        )
    if not manifests:
        raise UsageError("several-images", f"'{path}' has 0 images, not one", place=str(path))
    descriptor = manifests[0].descriptor()
    if descriptor.media_type == media_types.INDEX:
        raise UsageError(
            "several-images",
            f"'{path}' has an index of images for several architectures, not one image",
            place=str(path),
            hint=f"name the layout of one of them, such as {path}.x86_64",
        )
    if descriptor.media_type != media_types.MANIFEST:
        raise UsageError("not-an-image", f"'{path}' has a {descriptor.media_type}, not an image", place=str(path))
    return _image(path, descriptor.digest, dict(descriptor.annotations).get(media_types.REF_NAME, ""))


def read_layout_images(path: Path) -> tuple[Digest, tuple[Image, ...]]:
    """Return the digest of a layout's image or index, and its one image or those of the index.

    Verified as `read_layout` does. Raises UsageError `not-a-layout`, `several-images`, `not-an-image`,
    VerificationError.
    """
    members = read_layout_index(path)
    if not members:
        image = read_layout(path)
        return image.digest, (image,)
    index = JsonReader.parse(read_document(path / "index.json"), "index.json").get("manifests").items()[0].descriptor()
    reference = dict(index.annotations).get(media_types.REF_NAME, "")
    return index.digest, tuple(_image(path, descriptor.digest, reference) for descriptor, _ in members)


def _image(path: Path, digest: Digest, reference: str) -> Image:
    manifest = read_blob(path, digest)
    document = JsonReader.parse(manifest, "manifest")
    notes = document.get("annotations").members()
    title = notes[media_types.TITLE].text() if media_types.TITLE in notes else path.name
    return parse_image(title, reference, manifest, read_blob(path, document.get("config").descriptor().digest))


def has_attachments(path: Path) -> bool:
    """Return whether a layout carries signatures or attestations beside images, as a mirror.

    False for one that cannot be read.
    """
    try:
        entries = JsonReader.parse(read_document(path / "index.json"), "index.json").get("manifests").items()
        return any(not entry.get("artifactType").missing for entry in entries)
    except RelbuildError:
        return False


def read_layout_index(path: Path) -> tuple[tuple[Descriptor, str], ...]:
    """Return the manifests of a layout with one index, each with rpm's architecture.

    () for a layout of another kind. Raises UsageError `not-a-layout`, VerificationError.
    """
    manifests = JsonReader.parse(read_document(path / "index.json"), "index.json").get("manifests").items()
    if len(manifests) != 1 or manifests[0].descriptor().media_type != media_types.INDEX:
        return ()
    data = read_blob(path, manifests[0].descriptor().digest)
    found = []
    entries = JsonReader.parse(data, "index").get("manifests").items()
    for descriptor, entry in zip(parse_index(data), entries, strict=True):
        said = entry.get("platform")
        named = (said.get("architecture").text(), said.get("variant").text(""))
        found.append((descriptor, next((arch for arch, one in media_types.ARCHITECTURES.items() if one == named), "")))
    return tuple(found)


def read_document(path: Path) -> bytes:
    """Read a file of a layout with at most DOCUMENT_LIMIT bytes.

    Raises UsageError `not-a-layout` if it is missing or no file, VerificationError `document-too-large`.
    """
    try:
        return read_unlogged(path, DOCUMENT_LIMIT)
    except TooLarge:
        raise VerificationError("document-too-large", f"{path} has more than {DOCUMENT_LIMIT} bytes") from None
    except (NotRegular, FileNotFoundError, NotADirectoryError) as error:
        why = f"{path.name}: {error.strerror}" if isinstance(error, NotRegular) else f"it has no {path.name}"
    raise UsageError(
        "not-a-layout",
        f"'{path.parent}' is not an OCI layout: {why}",
        place=str(path.parent),
        hint="build the image first with `relbuild build`, or name another --output",
    )


_DAMAGED_STORE = "run the command again; the layer is rebuilt"
DAMAGED_LAYOUT = "make the layout again: remove it, and build or pull the image"
"""The way out of a layout whose content is damaged."""


def read_blob(layout: Path, digest: Digest) -> bytes:
    """Read a manifest or config of a layout, verified. Raises VerificationError."""
    path = blob_path(layout, digest)
    if not path.is_file():
        raise VerificationError(
            "blob-missing", f"{digest} is missing in the layout", place=str(layout), hint=DAMAGED_LAYOUT
        )
    data = read_document(path)
    if Digest.of(data) != digest:
        raise VerificationError(
            "blob-damaged",
            f"the content of {digest} in the layout does not match its digest",
            place=str(path),
            hint=DAMAGED_LAYOUT,
        )
    return data


def _stands(
    index_json: bytes, documents: Mapping[Digest, bytes], layers: Mapping[Digest, int], store: Store, target: Path
) -> bool:
    """Return whether exactly these documents and layers are at `target` already, intact."""
    files = {target / "oci-layout": LAYOUT_FILE, target / "index.json": index_json}
    files |= {blob_path(target, digest): data for digest, data in documents.items()}
    try:
        if any(read_document(path) != data for path, data in files.items()):
            return False
        wanted = {digest.hex for digest in (*documents, *layers)}
        if {path.name for path in (target / "blobs" / "sha256").iterdir()} != wanted:
            return False
        return all(_same(store, blob_path(target, digest), digest) for digest in layers)
    except (OSError, UsageError, VerificationError):
        return False


def _same(store: Store, ours: Path, digest: Digest) -> bool:
    """Return whether a layer's file is intact, by its recorded stamp or by hashing it now.

    False for a hard link to the store's file, which older relbuilds made.
    """
    found = blob_stamp(ours)
    return found is not None and found != store.stamp(digest) and file_is_intact(ours, digest, store)


def file_is_intact(ours: Path, digest: Digest, store: Store) -> bool:
    """Return whether a layer's file in a layout is intact, by its stamp or by hashing it now."""
    found = blob_stamp(ours)
    if found is None or store.recall(_stamped(ours, digest)) == found:
        return found is not None
    whole = stamp_of_whole(ours, digest)
    if whole is not None:
        note_layer(store, ours, digest, whole)
    return whole is not None


def note_layer(store: Store, ours: Path, digest: Digest, stamp: Stamp | None) -> None:
    """Record the stamp that a layer's file had when it was hashed or copied, in the store."""
    store.remember(_stamped(ours, digest), stamp)


def layer_stamp(layout: Path, digest: Digest, store: Store) -> object | None:
    """Return the recorded stamp of a layer's file in a layout, of when it was hashed or copied.

    None if there is none.
    """
    return store.recall(_stamped(blob_path(layout, digest), digest))


def _stamped(ours: Path, digest: Digest) -> Digest:
    return identity("layout-blob", 1, path=ours.absolute(), digest=digest)


def _require_whole(store: Store, digest: Digest, size: int) -> None:
    """Raise VerificationError if the store's blob is missing or not intact."""
    try:
        found = store.blob(digest).stat().st_size
    except FileNotFoundError:
        raise VerificationError(
            "blob-missing", f"layer {digest} is missing in the store", hint=STORE_DAMAGE_HINT
        ) from None
    if found != size:
        what = f"layer {digest} has {found} bytes in the store, not {size}"
        raise VerificationError("blob-damaged", what, hint=_DAMAGED_STORE)
    if not store.sound(digest):
        raise VerificationError(
            "blob-damaged",
            f"the content of layer {digest} in the store does not match its digest",
            hint=_DAMAGED_STORE,
        )


def _keep(store: Store, former: Path, digest: Digest, place: Path) -> bool:
    """Link the former layout's file of a layer to `place`, if its stamp is the recorded one.

    Return False if there is none, if it was changed, if it is the store's, and where it cannot be linked.
    """
    found = blob_stamp(former)
    if found is None or found == store.stamp(digest) or store.recall(_stamped(former, digest)) != found:
        return False
    try:
        if former.lstat().st_nlink != 1:  # Somebody's copy of the layout shares it, and would share the new one's.
            return False
        os.link(former, place, follow_symlinks=False)
    except OSError:
        return False
    linked = blob_stamp(place)
    if linked is not None and linked[:3] == found[:3]:  # Only the change time is another.
        return True
    place.unlink()  # It was replaced or changed meanwhile.
    return False


def _copy(store: Store, digest: Digest, place: Path, go_on: Callable[[], None]) -> None:
    with failing_at(place), store.reading(digest) as file, place.open("wb") as copy:
        clone_file(file, copy, lambda _: go_on())
