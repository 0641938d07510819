"""Read the digests of a published parent's images; children must be built from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.protocol import Mirror
from pipeline.mirror.published import read_published
from pipeline.model.configuration import oci_architecture
from pipeline.model.night_record import Product
from pipeline.prepare import LockedRecipe


def parent_digests(parent: Product | None, mirror: Mirror | None) -> tuple[tuple[str, Digest], ...]:
    """Return (architecture, digest) of each image of a parent as it is published.

    Sorted by architecture, with rpm's names; of several it is the digest of the index's member. Empty without a
    published parent. Raises UsageError or VerificationError if the index cannot be read.
    """
    digest = parent.published.digest if parent is not None else None
    if parent is None or digest is None:
        return ()
    if len(parent.architectures) == 1:
        return ((parent.architectures[0], digest),)
    if mirror is None:
        return ()
    images = read_published(mirror.repository(parent.name), digest).images
    members = {image.config.architecture: image.digest for image in images}
    named = ((arch, members.get(oci_architecture(arch))) for arch in sorted(parent.architectures))
    return tuple((arch, member) for arch, member in named if member is not None)


def require_parent(parents: Sequence[tuple[str, Digest]], every: Sequence[LockedRecipe], recipe: Path) -> None:
    """Refuse to build on another parent image than the one that was published tonight.

    Each architecture has its own, as in `parents`. Raises VerificationError `parent-differs`.
    """
    published = dict(parents)
    for one in every:
        parent, arch = one.parent, one.section.resolution.arch
        if parent is not None and arch in published and parent.digest != published[arch]:
            raise VerificationError(
                "parent-differs",
                f"parent '{parent.name}' for {arch} is {parent.digest} here, but was published as {published[arch]}",
                place=str(recipe),
                hint="this worker has other libraries or files than the one that built it; compare `relbuild version`",
            )
