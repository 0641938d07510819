"""Encode and parse image manifests, configs and indexes; a checked reader of untrusted JSON.

image-spec 1.1, config.md, manifest.md, image-index.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, assert_never

from pipeline.digest import DiffId, Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.model.image_keys import IMAGE_KEYS, ConfigForm, ImageKey, KeyForm
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types

DOCUMENT_LIMIT = 4 << 20
"""Bytes of a manifest, config or index: registries accept manifests of this size (distribution-spec)."""

IMAGE_LAYERS_MOST = 1000
"""Layers in a parsed manifest, at most: far more than any runtime can stack."""


def timestamp(seconds: int) -> str:
    """Format seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_image(
    name: str,
    reference: str,
    config: ImageConfig,
    layers: Sequence[Layer],
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Make an image from its layers (lowest first). The same values always give the same bytes.

    The manifest's annotations are title (`name`), version (the tag of `reference`), created (the config's), and
    `annotations`, which take precedence.
    """
    config_bytes = canonical_json(_config(config, layers))
    config_descriptor = Descriptor(media_types.CONFIG, Digest.of(config_bytes), len(config_bytes))
    tag = tag_of(reference)
    notes = {
        media_types.TITLE: name,
        media_types.CREATED: timestamp(config.created),
        **({media_types.VERSION: tag} if tag else {}),
        **(annotations or {}),
    }
    manifest_bytes = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "config": descriptor_json(config_descriptor),
            "layers": [descriptor_json(_layer_descriptor(layer)) for layer in layers],
            "annotations": notes,
        }
    )
    manifest = Descriptor(media_types.MANIFEST, Digest.of(manifest_bytes), len(manifest_bytes))
    return Image(name, reference, config, tuple(layers), config_descriptor, config_bytes, manifest, manifest_bytes)


INDEX_LIMIT = 100
"""Manifests in a parsed index, at most: far more than there are architectures."""


def make_index(images: Sequence[Image], annotations: Mapping[str, str] | None = None) -> Manifest:
    """Make an index of images of several architectures (image-index.md), sorted by architecture.

    The same values always give the same bytes. Its annotations are those that all images have in common, and
    `annotations`, which take precedence.
    """
    ordered = sorted(images, key=lambda image: (image.config.architecture, image.config.variant))
    common = set.intersection(*(set(_notes(image).items()) for image in ordered)) if ordered else set()
    return Manifest(
        media_types.INDEX,
        canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": media_types.INDEX,
                "manifests": [
                    {**descriptor_json(image.manifest_descriptor), "platform": platform_json(image.config)}
                    for image in ordered
                ],
                "annotations": {**dict(common), **(annotations or {})},
            }
        ),
    )


def parse_index(data: bytes, place: str = "index") -> tuple[Descriptor, ...]:
    """Return the descriptors of the manifests that an index lists.

    Raises VerificationError `document-malformed`, `index-too-long`.
    """
    items = JsonReader.parse(data, place).get("manifests").items()
    if len(items) > INDEX_LIMIT:
        raise VerificationError("index-too-long", f"{place} lists {len(items)} manifests, more than {INDEX_LIMIT}")
    return tuple(item.descriptor() for item in items)


def end_of_life(manifest: bytes) -> str:
    """Return the end-of-life date (`2027-04-30`) in the annotations of a manifest or index.

    "" if it has none, or an invalid one. Raises VerificationError `document-malformed`.
    """
    notes = JsonReader.parse(manifest, "manifest").get("annotations").members()
    text = notes[media_types.END_OF_LIFE].text() if media_types.END_OF_LIFE in notes else ""
    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        return ""


def _notes(image: Image) -> dict[str, str]:
    notes = JsonReader.parse(image.manifest_bytes, "manifest").get("annotations").members()
    return {key: value.text() for key, value in notes.items()}


def tag_of(reference: str) -> str:
    """Return the tag of a reference: `host/name:tag` → `tag`; a bare tag is returned itself."""
    last = reference.rpartition("/")[2]
    return last.partition(":")[2] if ":" in last or "/" in reference else last


def descriptor_json(descriptor: Descriptor) -> dict[str, object]:
    """Return the JSON of a descriptor (descriptor.md)."""
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        **({"annotations": dict(descriptor.annotations)} if descriptor.annotations else {}),
    }


def platform_json(config: ImageConfig) -> dict[str, str]:
    """Return the `platform` member of an index entry (image-index.md)."""
    variant = {"variant": config.variant} if config.variant else {}
    return {"architecture": config.architecture, "os": config.os, **variant}


def _layer_descriptor(layer: Layer) -> Descriptor:
    notes = dict(layer.blob.annotations)
    notes |= {media_types.LAYER_NAME: layer.name, media_types.LAYER_TAR_SIZE: str(layer.tar_size)}
    return Descriptor(layer.blob.media_type, layer.blob.digest, layer.blob.size, tuple(sorted(notes.items())))


def _config(config: ImageConfig, layers: Sequence[Layer]) -> dict[str, object]:
    created = timestamp(config.created)
    execution = {key.config: _stored(key, getattr(config, key.name)) for key in IMAGE_KEYS}
    return {
        "created": created,
        **platform_json(config),
        "config": {key: value for key, value in execution.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [{"created": created, "created_by": f"relbuild: layer {layer.name}"} for layer in layers],
    }


def _stored(key: ImageKey, value: Any) -> object:  # noqa: ANN401  as the key has it
    """Convert a setting's value to its form in a config's JSON."""
    match key.stored:
        case ConfigForm.STRING:
            return value
        case ConfigForm.ARRAY:
            return list(value)
        case ConfigForm.SET:
            return {_port(item) if key.form is KeyForm.PORTS else item: {} for item in value}
        case ConfigForm.OBJECT:
            return dict(value)
        case other:
            assert_never(other)


def _port(port: str) -> str:
    return port if "/" in port else f"{port}/tcp"


# --- parsing ---------------------------------------------------------------------------------------


_NUMBER_MOST = (1 << 63) - 1
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonReader:
    """Typed access to the values of an untrusted JSON document, named `place` in errors.

    Every access raises VerificationError `document-malformed` when the value is of another type.
    """

    def __init__(self, value: object, place: str) -> None:
        self._value = value
        self._place = place

    @classmethod
    def parse(cls, data: bytes, place: str) -> JsonReader:
        """Parse JSON text; return the reader of its value."""
        try:
            # RFC 8259: JSON is UTF-8, without NaN; unpaired surrogates cannot be encoded in UTF-8.
            value = json.loads(data.decode(), parse_constant=_no_constant)
            if _SURROGATE.search(data):
                json.dumps(value, ensure_ascii=False).encode()
            return cls(value, place)
        except (ValueError, RecursionError) as error:
            why = str(error)[:200] if not isinstance(error, UnicodeError) else "it is not Unicode in UTF-8"
            raise VerificationError("document-malformed", f"{place} is not JSON: {why}", place=place) from error

    def _wrong(self, wanted: str) -> VerificationError:
        return VerificationError("document-malformed", f"{self._place} is not {wanted}", place=self._place)

    def get(self, key: str) -> JsonReader:
        """Return the reader of an object's member (of None if it is missing)."""
        if not isinstance(self._value, dict):
            raise self._wrong("an object")
        return JsonReader(self._value.get(key), f"{self._place}: {key}")

    @property
    def missing(self) -> bool:
        """True if the value is missing or null."""
        return self._value is None

    def text(self, default: str | None = None) -> str:
        """Return the value as a string; `default`, if given, for a missing one."""
        if self._value is None and default is not None:
            return default
        if not isinstance(self._value, str):
            raise self._wrong("a string")
        return self._value

    def number(self) -> int:
        """Return the value as an integer from 0 to 2^63 - 1: the range of sizes in Go's libraries."""
        if not isinstance(self._value, int) or isinstance(self._value, bool) or not 0 <= self._value <= _NUMBER_MOST:
            raise self._wrong("a number")
        return self._value

    def items(self) -> list[JsonReader]:
        """Return readers of an array's items; none if it is missing."""
        if self._value is None:
            return []
        if not isinstance(self._value, list):
            raise self._wrong("an array")
        return [JsonReader(item, f"{self._place}[{index}]") for index, item in enumerate(self._value)]

    def members(self) -> dict[str, JsonReader]:
        """Return key → reader of an object's members; empty if it is missing."""
        if self._value is None:
            return {}
        if not isinstance(self._value, dict):
            raise self._wrong("an object")
        return {str(key): JsonReader(value, f"{self._place}: {key}") for key, value in self._value.items()}

    def json(self) -> bytes:
        """Encode the object as JSON with sorted keys and no white space; a missing one is `{}`."""
        value = {} if self._value is None else self._value
        if not isinstance(value, dict):
            raise self._wrong("an object")
        try:
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            return text.encode()
        except (ValueError, RecursionError) as error:  # NaN and unpaired surrogates are not JSON in UTF-8
            raise self._wrong("an object that JSON can hold") from error

    def texts(self) -> tuple[str, ...]:
        """Return an array of strings; empty if it is missing."""
        return tuple(item.text() for item in self.items())

    def descriptor(self) -> Descriptor:
        """Return the value as a descriptor (descriptor.md)."""
        notes = {key: value.text() for key, value in self.get("annotations").members().items()}
        return Descriptor(
            self.get("mediaType").text(),
            Digest.parse(self.get("digest").text()),
            self.get("size").number(),
            tuple(sorted(notes.items())),
        )


def parse_config(data: bytes, place: str = "config") -> tuple[ImageConfig, tuple[DiffId, ...]]:
    """Parse a config; return its settings and its layers' diff_ids. Raises VerificationError."""
    document = JsonReader.parse(data, place)
    run = document.get("config")
    run = JsonReader({}, place) if run.missing else run
    config = ImageConfig(
        architecture=document.get("architecture").text(),
        created=_seconds(document.get("created").text("1970-01-01T00:00:00Z"), place),
        os=document.get("os").text(),
        variant=document.get("variant").text(""),
        **{key.name: _restored(key, run.get(key.config)) for key in IMAGE_KEYS},
    )
    diff_ids = document.get("rootfs").get("diff_ids").texts()
    return config, tuple(DiffId.parse(text) for text in diff_ids)


def _restored(key: ImageKey, value: JsonReader) -> Any:  # noqa: ANN401  as the key has it
    """Convert a setting's value from its form in a config's JSON. Raises VerificationError."""
    match key.stored:
        case ConfigForm.STRING:
            return value.text("")
        case ConfigForm.ARRAY:
            return value.texts()
        case ConfigForm.SET:
            return tuple(value.members())
        case ConfigForm.OBJECT:
            return tuple((name, text.text()) for name, text in value.members().items())
        case other:
            assert_never(other)


def parse_image(name: str, reference: str, manifest_bytes: bytes, config_bytes: bytes) -> Image:
    """Parse an image from the bytes of its manifest and config.

    Raises VerificationError when they are malformed or do not match.
    """
    manifest = JsonReader.parse(manifest_bytes, "manifest")
    descriptors = [item.descriptor() for item in manifest.get("layers").items()]
    config, diff_ids = parse_config(config_bytes)
    config_descriptor = manifest.get("config").descriptor()
    if Digest.of(config_bytes) != config_descriptor.digest:
        raise VerificationError("digest-mismatch", f"the config is not {config_descriptor.digest}")
    if len(descriptors) != len(diff_ids) or len(descriptors) > IMAGE_LAYERS_MOST:
        raise VerificationError(
            "layers-mismatch",
            f"the manifest has {len(descriptors)} layers, the config {len(diff_ids)} (at most {IMAGE_LAYERS_MOST})",
        )
    layers = [
        _layer(number, descriptor, diff_id)
        for number, (descriptor, diff_id) in enumerate(zip(descriptors, diff_ids, strict=True))
    ]
    return Image(
        name,
        reference,
        config,
        tuple(layers),
        config_descriptor,
        config_bytes,
        Descriptor(media_types.MANIFEST, Digest.of(manifest_bytes), len(manifest_bytes)),
        manifest_bytes,
    )


def _layer(number: int, descriptor: Descriptor, diff_id: DiffId) -> Layer:
    """Make a layer from its descriptor.

    A layer made elsewhere gets its number as name, and 0 as tar size.
    """
    notes = dict(descriptor.annotations)
    name = notes.pop(media_types.LAYER_NAME, str(number))
    size = notes.pop(media_types.LAYER_TAR_SIZE, "0")
    blob = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, tuple(sorted(notes.items())))
    return Layer(name, diff_id, blob, int(size) if re.fullmatch(r"\d{1,18}", size) else 0)


def _seconds(text: str, place: str) -> int:
    try:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())
    except (ValueError, OverflowError) as error:
        raise VerificationError("document-malformed", f"{place}: '{text[:40]}' is not a time", place=place) from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
