"""Formatting of images as lines for people and as JSON values."""

from __future__ import annotations

from typing import assert_never

from pipeline.cli.progress_display import bytes_text
from pipeline.model.image import Image, ImageConfig
from pipeline.model.image_keys import IMAGE_KEYS, ImageKey, KeyForm
from pipeline.model.parent_image import ParentImage
from pipeline.oci import end_of_life


def image_as_lines(image: Image) -> tuple[str, ...]:
    """Format an image as lines for people."""
    config = image.config
    lines = [
        f"{image.name} {image.reference}",
        f"  digest       {image.digest}",
        f"  platform     {config.os}/{config.architecture}{config.variant and '/' + config.variant}",
        *(f"  {key.shown:<12} {text}" for key in IMAGE_KEYS if key.shown for text in _shown(key, config)),
    ]
    if ends := end_of_life(image.manifest_bytes):
        lines.append(f"  end of life  {ends}")
    for layer in image.layers:
        lines.append(f"  layer        {layer.blob.digest} {bytes_text(layer.blob.size)} {layer.name}")
    return tuple(lines)


def _shown(key: ImageKey, config: ImageConfig) -> tuple[str, ...]:
    """Format the value of a setting; variables and labels as one text each."""
    value = getattr(config, key.name)
    match key.form:
        case KeyForm.VARIABLES:
            return tuple(value)
        case KeyForm.LABELS:
            return tuple(f"{name}={text}" for name, text in value)
        case KeyForm.WORDS:
            return (" ".join(value) or key.unset,)
        case KeyForm.PORTS | KeyForm.PATHS:
            return (", ".join(value) or key.unset,)
        case KeyForm.USER | KeyForm.FOLDER | KeyForm.SIGNAL:
            return (value or key.unset,)
        case other:
            assert_never(other)


def image_as_json(image: Image, *, packages: bool = True) -> dict[str, object]:
    """Format an image as JSON values; `packages`: it is known which packages its layers contain."""
    return {
        "name": image.name,
        "reference": image.reference,
        "digest": str(image.digest),
        "architecture": image.config.architecture,
        "end_of_life": end_of_life(image.manifest_bytes) or None,
        "layers": [
            {
                "name": layer.name,
                "digest": str(layer.blob.digest),
                "diff_id": str(layer.diff_id),
                "media_type": layer.blob.media_type,
                "size": layer.blob.size,
                **({"packages": list(layer.contents)} if packages else {}),
            }
            for layer in image.layers
        ],
    }


def parent_as_json(parent: ParentImage | None) -> dict[str, object]:
    """Return the JSON member `parent`; no member if there is no parent image."""
    return {"parent": {"recipe": parent.name, "digest": str(parent.digest)}} if parent is not None else {}
