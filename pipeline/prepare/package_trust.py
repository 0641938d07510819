"""Collect the trusted keys and accepted signatures for the packages of each repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.model.platform import PackageRepository
from pipeline.model.signing_key import AcceptedSignature, KeyFault, PackageTrust, UnusableKey
from pipeline.openpgp_packets import prune_certificate
from pipeline.repos import LOCAL_REPOSITORY, RepositoryKey


def trust_by_repository(
    keys: Sequence[RepositoryKey], repositories: Sequence[PackageRepository], *, locked_at: int | None = None
) -> Mapping[str, PackageTrust]:
    """Return the trust for the packages of each repository, by its id.

    A package that a recipe names by path (and by its sha256) may be signed by any of the keys, in any way that one of
    the repositories accepts. `locked_at` is the build time of an existing lock, None if packages are selected anew: a
    key that expired after it still counts, so that the lock can be built later too; a revoked key never does.
    """
    found = {
        one.id: _trust([key for key in keys if key.repository == one.id], one.accept, locked_at) for one in repositories
    }
    found[LOCAL_REPOSITORY] = _trust(keys, [kind for one in repositories for kind in one.accept], locked_at)
    return found


def _trust(keys: Sequence[RepositoryKey], accept: Iterable[AcceptedSignature], locked_at: int | None) -> PackageTrust:
    certificates: set[bytes] = set()
    unusable: dict[UnusableKey, None] = {}
    # A file from before the revocation may stand beside the one that has it; of two dates of expiry the later counts.
    revoked = {one.fingerprint for key in keys for one in key.unusable if one.fault is KeyFault.REVOKED}
    for key in keys:
        lost = [one for one in key.unusable if not _counts(one, locked_at)]
        gone = {one.fingerprint for one in lost} | revoked
        certificates.add(prune_certificate(key.armored, gone))
        unusable |= dict.fromkeys(lost)
    return PackageTrust(tuple(sorted(certificates - {b""})), tuple(unusable), frozenset(accept))


def _counts(key: UnusableKey, locked_at: int | None) -> bool:
    return locked_at is not None and key.fault is KeyFault.EXPIRED and key.since > locked_at
