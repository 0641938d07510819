"""The name under which an image was signed, compared with the repository it is found in.

A good signature of another product, put here by whoever can write to the mirror, is none of this one
(containers-policy.json, `signedIdentity`).

A directory that was made without `--as` signs as `localhost/NAME`, which says the product and not the host. Where one
of the two names has this host, the shorter path must be the end of the longer one; all others must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import Problem, RelbuildError, VerificationError
from pipeline.mirror.attestations import signature_payloads
from pipeline.mirror.protocol import Repository
from pipeline.model.manifests import Manifest
from pipeline.model.rules import IdentityRule
from pipeline.oci import VerifyingKey, signature_tag, verify_signatures

NO_HOST = "localhost"
"""The host in names that say the product alone."""


@dataclass(frozen=True, slots=True)
class ExpectedIdentity:
    """The rule for the name under which an image must be signed.

    The name is the one `stated` by a person (`--as HOST/NAMESPACE/NAME`), else what the keeper's `rules` make of the
    repository's own name, else that name.
    """

    stated: str = ""
    rules: tuple[IdentityRule, ...] = ()

    def of(self, repository: Repository) -> SignedIdentity | None:
        """Return the expected name for one repository.

        None for a layout of which nobody said a name: it has none of its own.
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
    """A name that is expected: `HOST/NAMESPACE/NAME`.

    `exact`: a person named it, so that `localhost` is a host.
    """

    name: str
    exact: bool = False

    def covers(self, signed: str) -> bool:
        """Return whether what was signed under the name `signed` is what is expected.

        The name's tag and digest do not count.
        """
        signed = _repository_of(signed)
        if signed == self.name:
            return True
        if self.exact:
            return False
        hosts, paths = zip(*(name.partition("/")[::2] for name in (signed, self.name)), strict=True)
        shorter, longer = sorted(paths, key=len)
        return NO_HOST in hosts and bool(shorter) and f"/{longer}".endswith(f"/{shorter}")


def known_names(repository: Repository, expected: SignedIdentity | None) -> tuple[str, ...]:
    """Return the names under which statements of a repository's tags may be signed.

    They say where the tags point. The names are what is expected, and where that is not exact the same without a host.
    """
    own = () if repository.name else (repository.identity,)
    if expected is None or expected.exact:
        return (expected.name,) if expected else own
    parts = expected.name.split("/")[1:]
    without_host = (f"{NO_HOST}/{'/'.join(parts[at:])}" for at in range(len(parts)))
    return tuple(dict.fromkeys((*own, expected.name, *without_host)))


EXPECT_OWN = ExpectedIdentity()
"""The repository's own name."""


def signed_names(
    repository: Repository, manifest: Manifest, key: VerifyingKey, expected: SignedIdentity | None
) -> tuple[str, ...]:
    """Return the names among `expected` under which `key` signed a manifest.

    `expected` None: all. The signatures are in cosign's first form.

    Raises VerificationError: `signature-missing`, `identity-mismatch` if it is signed under other names alone, and as
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
    good = verify_signatures(signature, signature_payloads(repository, signature), manifest.digest, key)
    names = tuple(dict.fromkeys(one.identity for one in good if one.identity))
    covered = tuple(name for name in names if expected is None or expected.covers(name))
    if not covered and expected is not None:
        raise VerificationError.of([_mismatch(repository, manifest, names, expected)])
    return covered


def require_identity(
    repository: Repository, manifest: Manifest, key: VerifyingKey, expected: ExpectedIdentity = EXPECT_OWN
) -> None:
    """Check that `key` signed `manifest` under the expected name.

    For one who believes what is attested of `manifest`. Raises VerificationError as `signed_names`.
    """
    signed_names(repository, manifest, key, expected.of(repository))


def find_signed_names(
    repository: Repository, manifest: Manifest, key: VerifyingKey, expected: SignedIdentity | None
) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """The same, with what is wrong as a value."""
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
    """`HOST:PORT/NAME:TAG@sha256:…` → `HOST:PORT/NAME`."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0] if slash else name


def _remapped(name: str, rule: IdentityRule) -> str | None:
    """`name` with a rule's prefix replaced, at a `/`; None where it does not begin with it."""
    if name != rule.prefix and not name.startswith(f"{rule.prefix}/"):
        return None
    return rule.signed_prefix + name.removeprefix(rule.prefix)
