"""Collect the trusted keys and accepted signatures for the packages of each repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.model.platform import PackageRepository
from pipeline.model.signing_key import AcceptedSignature, PackageTrust
from pipeline.repos import LOCAL_REPOSITORY, RepositoryKey, counting_certificates


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
    certificates, unusable = counting_certificates(keys, locked_at=locked_at)
    return PackageTrust(certificates, unusable, frozenset(accept))
