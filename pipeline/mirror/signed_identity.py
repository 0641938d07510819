"""Check that an image's signatures name the expected repository (`signedIdentity`).

Otherwise whoever can write to the mirror could put another product's validly signed image here.

A directory that was made without `--as` signs as `localhost/NAME`, which names the product and not the host. Where one
of two compared names has this host, the shorter path must be the end of the longer one; all others must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import Problem, RelbuildError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import signature_payloads
from pipeline.mirror.protocol import Repository
from pipeline.model.manifests import Manifest
from pipeline.model.publication import NO_HOST
from pipeline.model.rules import IdentityRule
from pipeline.oci import VerifyingKey, signature_tag, verify_signatures


@dataclass(frozen=True, slots=True)
class ExpectedIdentity:
    """Settings from which the name is computed under which an image must be signed.

    It is the name `stated` by a person (`--as HOST/NAMESPACE/NAME`), else the repository's own name, mapped by the
    operator's `rules`.
    """

    stated: str = ""
    rules: tuple[IdentityRule, ...] = ()

    def of(self, repository: Repository) -> SignedIdentity | None:
        """Return the expected name for one repository.

        None for a layout without a stated name: it has none of its own.
        """
        if self.stated:
            return SignedIdentity(self.stated, exact=True)
        if not repository.name:
            return None
        for rule in self.rules:
            mapped = _remapped(repository.identity, rule)
            if mapped is not None:
                return SignedIdentity(mapped, exact=True)
        return SignedIdentity(repository.identity)


@dataclass(frozen=True, slots=True)
class SignedIdentity:
    """An expected name, `HOST/NAMESPACE/NAME`.

    `exact`: a person or a rule gave it, so that `localhost` is an ordinary host.
    """

    name: str
    exact: bool = False

    def covers(self, signed: str) -> bool:
        """Return whether the name in a signature matches; its tag and digest are ignored."""
        signed = _repository_of(signed)
        if signed == self.name:
            return True
        if self.exact:
            return False
        hosts, paths = zip(*(name.partition("/")[::2] for name in (signed, self.name)), strict=True)
        shorter, longer = sorted(paths, key=len)
        return NO_HOST in hosts and bool(shorter) and f"/{longer}".endswith(f"/{shorter}")


def known_names(repository: Repository, expected: SignedIdentity | None) -> tuple[str, ...]:
    """Return the names under which statements on a repository's tags may be signed.

    The expected name, and where that is not exact, its path with the host `localhost`.
    """
    own = () if repository.name else (repository.identity,)
    if expected is None or expected.exact:
        return (expected.name,) if expected else own
    parts = expected.name.split("/")[1:]
    without_host = (f"{NO_HOST}/{'/'.join(parts[at:])}" for at in range(len(parts)))
    return tuple(dict.fromkeys((*own, expected.name, *without_host)))


EXPECT_OWN = ExpectedIdentity()
"""Expects the repository's own name."""


def signed_names(
    repository: Repository, manifest: Manifest, key: VerifyingKey, expected: SignedIdentity | None
) -> tuple[str, ...]:
    """Return the names that match `expected` (None: all) under which `key` signed a manifest.

    The signatures are those under cosign's `.sig` tag.

    Raises VerificationError: `signature-missing`, `identity-mismatch` if it is signed under other names only, and as
    `verify_signatures`.
    """
    tag = signature_tag(manifest.digest)
    signature = repository.manifest(tag)
    if signature is None:
        raise VerificationError(
            "signature-missing",
            f"{manifest.digest} is not signed: it has no signature tag {tag}",
            place=repository.url,
            hint="publish it with relbuild, or copy it with `relbuild copy`, which also copies signatures",
        )
    try:
        payloads = signature_payloads(repository, signature)
    except VerificationError as error:
        raise VerificationError(
            "document-malformed",
            f"the signatures of {manifest.digest} are malformed: {error.problems[0].message}",
            place=f"{repository.url}:{tag}",
            hint="publish it again: malformed signatures are replaced; on a directory, `relbuild scrub` removes them",
        ) from None
    good = verify_signatures(signature, payloads, manifest.digest, key)
    names = tuple(dict.fromkeys(one.identity for one in good if one.identity))
    covered = tuple(name for name in names if expected is None or expected.covers(name))
    if not covered and expected is not None:
        raise VerificationError.of([_mismatch(repository, manifest, names, expected)])
    return covered


def require_identity(
    repository: Repository, manifest: Manifest, key: VerifyingKey, expected: ExpectedIdentity = EXPECT_OWN
) -> None:
    """Check that `key` signed `manifest` under the expected name.

    To be called before attestations of `manifest` are trusted. Raises VerificationError as `signed_names`.
    """
    signed_names(repository, manifest, key, expected.of(repository))


def find_signed_names(
    repository: Repository, manifest: Manifest, key: VerifyingKey, expected: SignedIdentity | None
) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """Return the names as `signed_names`, and its errors as problems instead of raising."""
    try:
        return signed_names(repository, manifest, key, expected), ()
    except RelbuildError as error:
        return (), error.problems


def _mismatch(repository: Repository, manifest: Manifest, names: Sequence[str], expected: SignedIdentity) -> Problem:
    return Problem(
        "identity-mismatch",
        f"{manifest.digest} is signed as {', '.join(names) or 'nothing'}, not as {expected.name}",
        repository.url,
        "if this mirror is a copy of that one, use `--as HOST/NAMESPACE/NAME`, or 'identities' in "
        "--rules FILE; otherwise this is another product's image",
    )


def _repository_of(name: str) -> str:
    """Strip tag and digest: `HOST:PORT/NAME:TAG@sha256:…` → `HOST:PORT/NAME`."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0] if slash else name


def _remapped(name: str, rule: IdentityRule) -> str | None:
    """Return `name` with a rule's prefix replaced; None if it does not begin with it."""
    if name != rule.prefix and not name.startswith(f"{rule.prefix}/"):
        return None
    return rule.signed_prefix + name.removeprefix(rule.prefix)
