"""Fetch a published image, test it again, and attest the new smoke report on the mirror.

For other checks or another runtime than before. Nothing is built, and no tag moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.launch import SmokeResult, run_tests
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import SignedAttachments
from pipeline.mirror.protocol import Repository
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.mirror.push import push_attachments
from pipeline.mirror.signed_identity import require_identity
from pipeline.model.evidence import evidence_json
from pipeline.model.image import Image
from pipeline.model.smoke import SmokePlan
from pipeline.oci import SigningKey, VerifyingKey
from pipeline.oci.predicates import SMOKE
from pipeline.prepare import BuildEnvironment


@dataclass(frozen=True, slots=True)
class RetestResult:
    """Result of testing an image of a mirror.

    `uploaded`: (digest, bytes) that were sent; `attached`: new referrers.
    """

    image: Image
    tested: SmokeResult
    uploaded: tuple[tuple[Digest, int], ...] = ()
    attached: tuple[Digest, ...] = ()


def retest(
    repository: Repository,
    digest: Digest,
    plan: SmokePlan,
    key: SigningKey,
    build_env: BuildEnvironment,
    *,
    full: bool = False,
    folder: Path = Path(),
    also: Callable[[Image], Mapping[str, bytes]] = lambda image: {},
    former: tuple[VerifyingKey, ...] = (),
) -> RetestResult:
    """Test the image `digest` of a repository with the checks of `plan`; attest a pass.

    `also` returns further attestations (predicate type → JSON). `folder` is the recipe's. What `former`
    keys of the publisher signed counts as well.

    Raises UsageError `reference-missing`, VerificationError `image-missing` for an index, `identity-mismatch`.
    """
    held = read_published(repository, digest)
    image = _one(held, repository)
    require_identity(repository, held.manifest, replace(key.public, former=former))
    for layer in image.layers:
        if not build_env.store.sound(layer.blob.digest):
            repository.fetch_blob(layer.blob, build_env.store)
    tested = run_tests(
        image,
        plan,
        store=build_env.store,
        sandboxes=build_env.launching(),
        progress=build_env.progress,
        clock=build_env.clock,
        full=full,
        folder=folder,
    )
    if tested.evidence is None:
        return RetestResult(image, tested)
    attachments = SignedAttachments(
        about=image.manifest_descriptor,
        name=image.name,
        created=image.config.created,
        predicates={SMOKE: evidence_json(tested.evidence), **also(image)},
        key=key,
    )
    uploaded, attached = push_attachments((attachments,), repository, progress=build_env.progress)
    return RetestResult(image, tested, uploaded, attached)


def _one(held: MirroredImage, repository: Repository) -> Image:
    if len(held.images) != 1:
        raise VerificationError("image-missing", f"{held.digest} is an index, not a single image", place=repository.url)
    return held.images[0]
