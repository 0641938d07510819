"""Read an image's documents on a mirror, validate all of it, or read its attested SBOM."""

from __future__ import annotations

from pipeline.digest import Digest
from pipeline.errors import Problem, VerificationError
from pipeline.mirror.address import Address
from pipeline.mirror.attestations import find_attested
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.mirror.signed_identity import EXPECT_OWN, ExpectedIdentity, require_identity
from pipeline.oci import VerifyingKey, choose_image, validate_layout, write_layout
from pipeline.oci.predicates import CYCLONEDX, SPDX
from pipeline.oci.sbom import SbomForm
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access

_PREDICATES = {SbomForm.SPDX: SPDX, SbomForm.CYCLONEDX: CYCLONEDX}


def inspect_reference(reference: Address, build_env: BuildEnvironment) -> MirroredImage:
    """Read manifests and configs of an image or index, verified; layers are not read.

    Raises UsageError `reference-missing`, VerificationError.
    """
    with mirror_access(build_env).repository(reference) as repository:
        return read_published(repository, reference.reference)


def validate_reference(reference: Address, build_env: BuildEnvironment) -> tuple[MirroredImage, tuple[Problem, ...]]:
    """Fetch an image or index into the store, and validate it as `validate_layout` does."""
    with mirror_access(build_env).repository(reference) as repository:
        held = read_published(repository, reference.reference)
        problems: list[Problem] = []
        for image in held.images:
            for layer in image.layers:
                repository.fetch_blob(layer.blob, build_env.store)
            with build_env.store.temporary("validate") as folder:
                layout = folder / "layout"
                write_layout(image, store=build_env.store, target=layout)
                problems += validate_layout(layout)
        return held, tuple(problems)


def attested_sbom(
    reference: Address,
    form: SbomForm,
    key: VerifyingKey,
    build_env: BuildEnvironment,
    *,
    identity: ExpectedIdentity = EXPECT_OWN,
    arch: str = "",
) -> tuple[Digest, bytes]:
    """Return an image's digest and its SBOM attested by `key`.

    Of an index they are of the image for `arch`. The image must be signed by `key` under the expected name.

    Raises UsageError `several-images` for an index without `arch`, `architecture-missing`, VerificationError.
    """
    with mirror_access(build_env).repository(reference) as repository:
        held = read_published(repository, reference.reference)
        image = choose_image(held.images, arch, str(reference))
        require_identity(repository, held.manifest, key, identity)
        digest = image.digest
        good, bad = find_attested(repository, digest, _PREDICATES[form], key)
        if good:
            return digest, good[-1].statement.predicate
        raise (
            bad[0]
            if bad
            else VerificationError(
                "attestation-missing",
                f"{digest} has no SBOM attestation",
                place=repository.url,
                hint="publish it with relbuild, or copy it with `relbuild copy`, which also copies attestations",
            )
        )
