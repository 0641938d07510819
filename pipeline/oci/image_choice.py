"""Choose one of an index's images by its architecture."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.model.image import Image
from pipeline.oci import media_types


def image_architecture(image: Image) -> str:
    """Return rpm's name of an image's architecture, OCI's if rpm has none for it."""
    said = (image.config.architecture, image.config.variant)
    return next((arch for arch, one in media_types.ARCHITECTURES.items() if one == said), "/".join(filter(None, said)))


def choose_image(images: Sequence[Image], arch: str, place: str) -> Image:
    """Return the image for `arch`, rpm's name or OCI's; the only one if it is "".

    Raises UsageError `several-images` if there are several and none is named, `architecture-missing` if none is for
    it.
    """
    known = [image_architecture(image) for image in images]
    if not arch and len(images) == 1:
        return images[0]
    if not arch:
        raise UsageError(
            "several-images",
            f"'{place}' has images for several architectures",
            place=place,
            hint=f"choose one with --arch: {', '.join(known)}",
        )
    for image, name in zip(images, known, strict=True):
        if arch in (name, image.config.architecture):
            return image
    raise UsageError(
        "architecture-missing",
        f"'{place}' has no image for '{arch}'",
        place=place,
        hint=f"it has {', '.join(known)}",
    )
