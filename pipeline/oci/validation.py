"""Validate an OCI layout: recompute all digests, sizes and diff_ids; return all mismatches."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import ParamSpec

from pipeline.compression import START_SIZE, Compression, layer_codec
from pipeline.digest import DiffId, Digest, HashingWriter
from pipeline.errors import Problem, RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor
from pipeline.oci import media_types
from pipeline.oci.image_layout import DAMAGED_LAYOUT, blob_path, read_document
from pipeline.oci.image_manifest import JsonReader, parse_config
from pipeline.streams import LAYER_SIZE_LIMIT, decompressed, decompression_workers

_P = ParamSpec("_P")

LAYOUT_PROBLEM_LIMIT = 1000
"""Problems that are reported: validation stops after so many."""

LAYOUT_MANIFEST_LIMIT = 100
"""Manifests of one layout that are validated."""

_LAYER_TYPES = {media_types.LAYER_TAR, *media_types.LAYERS.values()}


def validate_layout(path: Path) -> tuple[Problem, ...]:
    """Return all problems of the layout at `path`; empty when it is valid.

    Digest and size of every blob and the diff_id of every layer are recomputed; config and manifest, platforms and
    media types are compared; missing and unreferenced blobs are reported.
    """
    found = _Found(path)
    try:
        _layout(found)
    except _Enough:
        found.problems.append(Problem("too-many-problems", f"more than {LAYOUT_PROBLEM_LIMIT} problems", str(path)))
    except RelbuildError as error:
        found.problems.extend(error.problems)
    return tuple(found.problems)


class _Enough(Exception):
    pass


@dataclass(slots=True)
class _Found:
    layout: Path
    problems: list[Problem] = field(default_factory=list)
    referred: set[str] = field(default_factory=set)
    checked: dict[Digest, bool] = field(default_factory=dict)

    def add(self, code: str, message: str, place: str, hint: str | None = None) -> None:
        self.problems.append(Problem(code, message, place, hint))
        if len(self.problems) >= LAYOUT_PROBLEM_LIMIT:
            raise _Enough

    def attempt(self, look: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Run one check; record its error as a problem, so that the others go on."""
        try:
            look(*args, **kwargs)
        except RelbuildError as error:
            for problem in error.problems:
                self.add(problem.code, problem.message, problem.place or "", problem.hint)

    def blob(self, descriptor: Descriptor, place: str) -> bool:
        """Return whether the blob of a descriptor is here and intact; record a problem if not."""
        self.referred.add(descriptor.digest.hex)
        if descriptor.digest in self.checked:
            return self.checked[descriptor.digest]
        path = blob_path(self.layout, descriptor.digest)
        good = False
        if path.is_symlink() or not path.is_file():
            self.add("blob-missing", f"{descriptor.digest} is not in the layout", place, DAMAGED_LAYOUT)
        else:
            size = path.stat().st_size
            if size != descriptor.size:
                said = f"{size} bytes, not {descriptor.size}"
                self.add("size-mismatch", f"{descriptor.digest} has {said}", place, DAMAGED_LAYOUT)
            digest = _digest(path)
            if digest != descriptor.digest:
                message = f"the content of {descriptor.digest} has the digest {digest}"
                self.add("digest-mismatch", message, place, DAMAGED_LAYOUT)
            good = size == descriptor.size and digest == descriptor.digest
        self.checked[descriptor.digest] = good
        return good


def _layout(found: _Found) -> None:
    version = JsonReader.parse(read_document(found.layout / "oci-layout"), "oci-layout")
    if version.get("imageLayoutVersion").text("") != "1.0.0":
        found.add("layout-version", "imageLayoutVersion is not 1.0.0", "oci-layout")
    index = JsonReader.parse(read_document(found.layout / "index.json"), "index.json")
    if index.get("schemaVersion").number() != 2:
        found.add("schema-version", "schemaVersion is not 2", "index.json")
    for item in _listed(found, index, "index.json"):
        is_index = item.get("mediaType").text("") == media_types.INDEX
        found.attempt(_index if is_index else _manifest, found, item)
    folder = found.layout / "blobs" / "sha256"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not re.fullmatch("[0-9a-f]{64}", path.name):
            found.add("blob-name", f"the file name blobs/sha256/{path.name[:80]} is not a sha256", "blobs")
        elif path.name not in found.referred:
            found.add("blob-unreferenced", f"unreferenced blob sha256:{path.name}", "blobs")


def _listed(found: _Found, index: JsonReader, place: str) -> tuple[JsonReader, ...]:
    """Return the entries of an index; record a problem if there are none, or too many."""
    manifests = index.get("manifests").items()
    if not manifests:
        found.add("no-image", "the index lists no manifest", place)
    if len(manifests) > LAYOUT_MANIFEST_LIMIT:
        found.add(
            "too-many-images", f"the index lists {len(manifests)} manifests, more than {LAYOUT_MANIFEST_LIMIT}", place
        )
    return tuple(manifests[:LAYOUT_MANIFEST_LIMIT])


def _index(found: _Found, item: JsonReader) -> None:
    """Validate an index of images for several architectures, which is listed in index.json."""
    descriptor = item.descriptor()
    place = f"index {descriptor.digest.short}"
    if not found.blob(descriptor, place):
        return
    index = JsonReader.parse(read_document(blob_path(found.layout, descriptor.digest)), place)
    if index.get("schemaVersion").number() != 2:
        found.add("schema-version", "schemaVersion is not 2", place)
    if index.get("mediaType").text(media_types.INDEX) != descriptor.media_type:
        found.add("media-type", "the index's mediaType differs from its descriptor's", place)
    for entry in _listed(found, index, place):
        found.attempt(_manifest, found, entry)


def _manifest(found: _Found, item: JsonReader) -> None:
    descriptor = item.descriptor()
    place = f"manifest {descriptor.digest.short}"
    if descriptor.media_type != media_types.MANIFEST:
        found.add("media-type", f"{descriptor.media_type} is not {media_types.MANIFEST}", place)
    if not found.blob(descriptor, place):
        return
    manifest = JsonReader.parse(read_document(blob_path(found.layout, descriptor.digest)), place)
    if manifest.get("schemaVersion").number() != 2:
        found.add("schema-version", "schemaVersion is not 2", place)
    if manifest.get("mediaType").text(media_types.MANIFEST) != descriptor.media_type:
        found.add("media-type", "the manifest's mediaType differs from its descriptor's", place)
    config = manifest.get("config").descriptor()
    if config.media_type != media_types.CONFIG:
        found.add("media-type", f"{config.media_type} is not {media_types.CONFIG}", f"{place}: config")
    layers = [entry.descriptor() for entry in manifest.get("layers").items()]
    found.referred.update(part.digest.hex for part in (config, *layers))
    diff_ids: tuple[DiffId, ...] = ()

    def look_at_config() -> None:
        nonlocal diff_ids
        if found.blob(config, f"{place}: config"):
            diff_ids = _config(found, config, item.get("platform"), f"{place}: config")
            if len(diff_ids) != len(layers):
                found.add("layers-mismatch", f"{len(layers)} layers, but {len(diff_ids)} diff_ids", place)
                diff_ids = ()

    found.attempt(look_at_config)
    for number, layer in enumerate(layers):
        found.attempt(_layer, found, layer, diff_ids[number] if diff_ids else None, f"{place}: layer {number}")


def _config(found: _Found, config: Descriptor, platform: JsonReader, place: str) -> tuple[DiffId, ...]:
    data = read_document(blob_path(found.layout, config.digest))
    said, diff_ids = parse_config(data, place)
    if not platform.missing:
        stated = tuple(platform.get(key).text("") for key in ("architecture", "os", "variant"))
        if stated != (said.architecture, said.os, said.variant):
            found.add("platform-mismatch", "the platform in the index differs from the one in the config", place)
    if JsonReader.parse(data, place).get("rootfs").get("type").text("") != "layers":
        found.add("rootfs-type", "rootfs.type is not 'layers'", place)
    history = JsonReader.parse(data, place).get("history").items()
    filled = sum(1 for entry in history if entry.members().get("empty_layer") is None)
    if history and filled != len(diff_ids):
        found.add("history-mismatch", f"history lists {filled} layers, rootfs lists {len(diff_ids)}", place)
    return diff_ids


def _layer(found: _Found, layer: Descriptor, diff_id: DiffId | None, place: str) -> None:
    if layer.media_type not in _LAYER_TYPES:
        found.add("media-type", f"{layer.media_type} is not a layer media type", place)
    if not found.blob(layer, place) or diff_id is None:
        return
    said = dict(layer.annotations).get(media_types.LAYER_TAR_SIZE, "")
    limit = min(int(said), LAYER_SIZE_LIMIT) if re.fullmatch(r"[0-9]{1,18}", said) else LAYER_SIZE_LIMIT
    writer = HashingWriter()
    path = blob_path(found.layout, layer.digest)
    with path.open("rb") as file:
        start = file.read(START_SIZE)
        file.seek(0)
        if start and not _is(layer.media_type, start):
            found.add("media-type", f"the content is not {layer.media_type}", place)
        for piece in decompressed(file, limit=limit, name=place, workers=decompression_workers()):
            writer.write(piece)
    if writer.diff_id != diff_id:
        found.add("diff-id-mismatch", f"the tar has the digest {writer.diff_id}, the config states {diff_id}", place)
    if said and said != str(writer.size):
        found.add("tar-size-mismatch", f"the tar has {writer.size} bytes, the manifest states {said}", place)


def _is(media_type: str, start: bytes) -> bool:
    codecs = [layer_codec(one) for one in Compression]
    return all(one.reads.starts(start) for one in codecs if media_type.endswith(one.media_suffix))


def _digest(path: Path) -> Digest:
    writer = HashingWriter()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            writer.write(piece)
    return writer.digest
