"""Sign a published image with the publisher's new key, once it is verified with former ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, VerificationError
from pipeline.mirror.attestations import SignedAttachments
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import push_attachments
from pipeline.mirror.signed_again import sign_again
from pipeline.mirror.signed_identity import EXPECT_OWN
from pipeline.oci import SigningKey, VerifyingKey
from pipeline.prepare import BuildEnvironment
from pipeline.release.verify_reference import verify_in_repository


def sign_image_again(
    repository: Repository,
    digest: Digest,
    key: SigningKey,
    build_env: BuildEnvironment,
    *,
    former: tuple[VerifyingKey, ...],
    also: Callable[[Digest], Mapping[str, bytes]],
) -> bool:
    """Sign an image with `key`, once it is verified with `former` keys, unless `key` signed it.

    So are the attestations that `also` returns of an image: predicate type → JSON. Returns False, after a warning, if
    it does not verify. Raises as the repository does.
    """
    expected = EXPECT_OWN.of(repository)
    trusted = replace(key.public, former=former)
    try:
        try:
            found = verify_in_repository(repository, digest, key.public, build_env, contents=False, expected=expected)
        except (VerificationError, PublicationRefused):
            found = verify_in_repository(repository, digest, trusted, build_env, contents=True, expected=expected)
            sign_again(found, repository, key, trusted, build_env.progress)
    except (VerificationError, PublicationRefused) as error:
        build_env.progress.warn(f"{repository.url}: {digest} does not verify and is not signed again: {error}")
        return False
    further = [
        SignedAttachments(image.manifest_descriptor, image.name, image.config.created, predicates, key)
        for image in found.held.images
        if (predicates := also(image.digest))
    ]
    if further:
        push_attachments(further, repository, progress=build_env.progress)
    return True
