"""Bring an image of a mirror to this machine: verified and whole, or file by file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from pipeline.errors import PublicationRefused, VerificationError
from pipeline.layers import ImageFiles
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.published import read_published
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity
from pipeline.mirror.verification import Verified
from pipeline.model.image import Image
from pipeline.oci import VerifyingKey, choose_image
from pipeline.prepare import BuildEnvironment
from pipeline.progress import task
from pipeline.release.current_images import mirror_access
from pipeline.release.verify_reference import verify_in_repository


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image whose layers are in the store, and the verification that it passed before."""

    image: Image
    verified: Verified


def pull_image(
    reference: Address,
    choose: Callable[[Sequence[Image]], Image],
    key: VerifyingKey,
    build_env: BuildEnvironment,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
    allow_stale: bool = False,
) -> PulledImage:
    """Verify an image or index on a mirror, and fetch the layers of one image into the store.

    It is the one that `choose` returns. What is verified is as `verify_reference` says, but layers are read once, while
    they are fetched, and only those of that image. Raises as `verify_reference` and `choose`.
    """
    with mirror_access(build_env).repository(reference) as repository:
        try:
            found = verify_in_repository(
                repository,
                reference.reference,
                key,
                build_env,
                contents=False,
                expected=identity.of(repository),
                allow_stale=allow_stale,
            )
        except PublicationRefused as refused:  # the attested evidence does not suffice
            raise VerificationError.of(refused.problems) from refused
        image = choose(found.held.images)
        for layer in image.layers:
            with task(build_env.progress, "fetch", layer.name, total=layer.blob.size, unit="bytes"):
                repository.fetch_blob(layer.blob, build_env.store)
        return PulledImage(image, found)


@contextlib.contextmanager
def open_image_files(reference: Address, arch: str, build_env: BuildEnvironment) -> Iterator[ImageFiles]:
    """Open the files of an image on a mirror, whose layers are fetched as they are needed.

    All digests are verified, no signatures. Raises UsageError `reference-missing`, `several-images`,
    VerificationError.
    """
    with mirror_access(build_env).repository(reference) as repository:
        held = read_published(repository, reference.reference)
        image = choose_image(held.images, arch, str(reference))
        yield ImageFiles(image, build_env.store, lambda layer: repository.fetch_blob(layer.blob, build_env.store))
