"""Kinds of signatures × policies × what was done to the package: the verdict is rpm's, or stricter for a stated reason.

`rpmkeys` of this machine (4.18) is asked with the same keys, at the level that demands signatures, and that of rpm 6
for a sample (RELBUILD_SOAK=1: for all).
"""

from __future__ import annotations

import functools
import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.model.platform import PackageRepository
from pipeline.model.signing_key import AcceptedSignature, PackageTrust
from pipeline.packages import verify_package
from pipeline.prepare.package_trust import trust_by_repository
from pipeline.repos import RepositoryKey, read_keys
from tests.support.openpgp import V6_SIGNATURE, KeyMaker, key_maker
from tests.support.rpm6 import rpm6_accepts
from tests.support.rpm_factory import Forge, Signed
from tests.support.sampling import first_step, stride
from tests.support.signed_rpms import DSA_HEADER, GPG, PGP, RSA_HEADER, Parts


class Kind(StrEnum):
    """What is signed, with what, and where the signature stands."""

    HEADER_RSA = "RSA over the header"
    HEADER_EDDSA = "EdDSA over the header"
    HEADER_SHA1 = "RSA/SHA1 over the header"
    BOTH = "RSA over the header, and over header and payload"
    LEGACY_RSA = "no payload digest; RSA over the header, and over header and payload"
    LEGACY_EDDSA = "no payload digest; EdDSA over the header, and over header and payload"
    LEGACY_SHA1 = "no payload digest; RSA/SHA1 over the header, and over header and payload"
    LEGACY_WHOLE = "no payload digest; RSA over header and payload alone"
    LEGACY_HEADER = "no payload digest; RSA over the header alone"
    LISTED = "EdDSA over the header, in rpm 6's list alone"
    LISTED_TOO = "RSA over the header, and EdDSA by a stranger in rpm 6's list"
    LISTED_V6 = "OpenPGP v6 over the header, in rpm 6's list alone"
    LISTED_V6_TOO = "RSA over the header, and OpenPGP v6 in rpm 6's list"


class Case(StrEnum):
    """What is wrong, if anything."""

    GOOD = "good"
    SUBKEY = "signed by a subkey"
    WRONG_KEY = "signed by a key that is not trusted"
    HEADER = "the header was altered"
    PAYLOAD = "the payload was altered"
    SIGNATURE = "the signature was altered"
    EXPIRED = "the key has expired since"
    EXPIRED_SUBKEY = "signed by a subkey that has expired since"
    EXPIRED_OTHER = "another key of the file has expired"
    REVOKED = "the key was revoked"
    REVOKED_SUBKEY = "signed by a subkey that was revoked"
    REVOKED_OTHER = "another key of the file was revoked"


POLICIES = tuple(
    frozenset(chosen) for number in range(3) for chosen in itertools.combinations(AcceptedSignature, number)
)
LEGACY = frozenset({Kind.LEGACY_RSA, Kind.LEGACY_EDDSA, Kind.LEGACY_SHA1, Kind.LEGACY_WHOLE, Kind.LEGACY_HEADER})
SHA1 = frozenset({Kind.HEADER_SHA1, Kind.LEGACY_SHA1})
EDDSA = frozenset({Kind.HEADER_EDDSA, Kind.LEGACY_EDDSA, Kind.LISTED})
BY_SUBKEY = frozenset({Case.SUBKEY, Case.EXPIRED_SUBKEY, Case.REVOKED_SUBKEY})


def expected(kind: Kind, case: Case, policy: frozenset[AcceptedSignature]) -> str:
    """The code of the error, empty if the package is accepted."""
    legacy = AcceptedSignature.LEGACY_HEADER_PAYLOAD in policy
    covers_payload = kind in LEGACY - {Kind.LEGACY_HEADER} or kind is Kind.BOTH
    match case:
        case _ if kind is Kind.LISTED_V6:
            return "package-signature-unsupported"
        case Case.WRONG_KEY:
            return "package-signature-unsupported" if kind is Kind.LISTED_V6_TOO else "package-key-unknown"
        case Case.EXPIRED | Case.EXPIRED_SUBKEY:
            return "package-key-expired"
        case Case.REVOKED | Case.REVOKED_SUBKEY:
            return "package-key-revoked"
        case Case.HEADER | Case.SIGNATURE:
            return "package-signature-bad"
        case Case.PAYLOAD if covers_payload:
            return "package-signature-bad"
        case _ if kind in SHA1 and AcceptedSignature.SHA1 not in policy:
            return "package-signature-weak"
        case _ if kind in LEGACY and (not legacy or kind is Kind.LEGACY_HEADER):
            return "package-old-format"
        case Case.PAYLOAD:
            return "package-damaged"
        case _:
            return ""


STRICTER = {
    "package-signature-weak": "SHA-1 can be forged; rpm 6.1 refuses it too, and a repository may accept it",
    "package-old-format": "nothing signed names the payload but the policy's signature; a repository may accept it",
    "package-key-expired": "rpm 6.1 refuses it; 4.18 does not look",
    "package-key-revoked": "rpm 6.1 refuses it; 4.18 takes a key without its revocation",
}
"""Reasons for which what rpm 4.18 accepts is refused, by the error."""

AS_RPM_6 = {
    Kind.LISTED: "rpm 6.1 reads its list; 4.18 sees no signature",
    Case.REVOKED_OTHER: "rpm 6.1 takes the other keys; 4.18 drops the whole file",
}
"""Reasons for which what rpm 4.18 refuses is accepted: rpm 6.1 does."""


AS_RPM_4 = {
    Kind.LISTED_TOO: "4.18 takes the good signature by a trusted key; 6.1 sees its list alone, which anybody can add",
    Kind.LISTED_V6_TOO: "likewise",
}
"""Reasons for which what rpm 6.1 refuses is accepted: rpm 4.18 does."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of all rows."""

    rsa: KeyMaker
    eddsa: KeyMaker
    stranger: KeyMaker


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    folder = tmp_path_factory.mktemp("gpg")
    with (
        key_maker(folder / "rsa", "rsa2048") as rsa,
        key_maker(folder / "eddsa") as eddsa,
        key_maker(folder / "stranger") as stranger,
    ):
        yield Keys(rsa, eddsa, stranger)


@pytest.fixture(scope="module")
def parts(made: Forge) -> Parts:
    install = "mkdir -p usr/share/it; head -c 20000 /dev/urandom >usr/share/it/data"
    return Parts.of(made.package("it", install=install, files=["/usr/share/it"], signed=Signed.NOT))


def trusted_file(kind: Kind, case: Case, keys: Keys) -> bytes:
    """The file of keys that is trusted."""
    maker = keys.eddsa if kind in EDDSA else keys.rsa
    match case:
        case Case.WRONG_KEY:
            return keys.stranger.public
        case Case.EXPIRED:
            return maker.expired()
        case Case.EXPIRED_SUBKEY | Case.EXPIRED_OTHER:
            return maker.expired(subkey=True)
        case Case.REVOKED:
            return maker.revoked()
        case Case.REVOKED_SUBKEY | Case.REVOKED_OTHER:
            return maker.revoked(subkey=True)
        case _:
            return maker.public


def package(kind: Kind, case: Case, keys: Keys, parts: Parts) -> bytes:
    """The package of a kind to which that was done."""
    if kind in LEGACY:
        parts = parts.without_payload_digest()
    maker, tags = (keys.eddsa, (DSA_HEADER, GPG)) if kind in EDDSA else (keys.rsa, (RSA_HEADER, PGP))
    digest = "SHA1" if kind in SHA1 else "SHA256"

    def sign(data: bytes) -> bytes:
        packet = maker.sign(data, subkey=case in BY_SUBKEY, digest=digest)
        return packet[:-1] + bytes([packet[-1] ^ 1]) if case is Case.SIGNATURE else packet

    over_header, over_all = sign(parts.header), sign(parts.header + parts.payload)
    tagged: dict[int, bytes] = {}
    listed: list[bytes] = []
    match kind:
        case Kind.LISTED:
            listed = [over_header]
        case Kind.LISTED_V6:
            listed = [V6_SIGNATURE]
        case Kind.LISTED_V6_TOO:
            tagged, listed = {tags[0]: over_header}, [V6_SIGNATURE]
        case Kind.LISTED_TOO:
            stranger = keys.eddsa.sign(parts.header)
            tagged, listed = {tags[0]: over_header}, [stranger]
        case Kind.LEGACY_WHOLE:
            tagged = {tags[1]: over_all}
        case Kind.HEADER_RSA | Kind.HEADER_EDDSA | Kind.HEADER_SHA1 | Kind.LEGACY_HEADER:
            tagged = {tags[0]: over_header}
        case Kind.BOTH | Kind.LEGACY_RSA | Kind.LEGACY_EDDSA | Kind.LEGACY_SHA1:
            tagged = {tags[0]: over_header, tags[1]: over_all}
    match case:
        case Case.HEADER:
            parts = parts.with_other_header()
        case Case.PAYLOAD:
            parts = parts.with_other_payload()
        case _:
            pass
    return parts.signed(tagged, listed)


def rpmkeys_accepts(path: Path, trusted: bytes, folder: Path) -> bool:
    """The verdict of this machine's rpm, with these keys and no others."""
    ring = folder / "keyring"
    ring.mkdir()
    (ring / "0.key").write_bytes(trusted)
    words = {"_keyring": "fs", "_keyringpath": f"{ring}/", "_pkgverify_level": "all"}
    defines = [word for name, value in words.items() for word in ("--define", f"{name} {value}")]
    return subprocess.run(["rpmkeys", *defines, "-K", path], capture_output=True, check=False).returncode == 0


@functools.cache
def certificates_of(trusted: bytes) -> tuple[RepositoryKey, ...]:
    return read_keys("r", trusted, "key")


def verdict(path: Path, trust: PackageTrust) -> str:
    try:
        verify_package(path, trust)
    except VerificationError as error:
        return error.code
    return ""


def test_the_same_is_said_by_rpm_6_or_less_for_a_reason(keys: Keys, parts: Parts, tmp_path: Path) -> None:
    rows = list(itertools.product(Kind, Case))
    chosen = rows[first_step("rpm 6", 8) - 1 :: stride(8)]
    for kind, case in chosen:
        folder = tmp_path / f"{kind.name}-{case.name}"
        folder.mkdir()
        path = folder / "it.rpm"
        path.write_bytes(package(kind, case, keys, parts))
        refused = expected(kind, case, frozenset())
        if rpm6_accepts(path, trusted_file(kind, case, keys), folder):
            assert not refused or refused in STRICTER, (kind, case)
        else:
            assert refused or kind in AS_RPM_4, (kind, case)


@pytest.mark.parametrize("case", Case, ids=lambda case: case.name.lower())
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name.lower())
def test_a_package_is_judged_as_by_rpm_or_more_strictly_for_a_reason(
    kind: Kind, case: Case, keys: Keys, parts: Parts, tmp_path: Path
) -> None:
    path = tmp_path / "it.rpm"
    path.write_bytes(package(kind, case, keys, parts))
    trusted = trusted_file(kind, case, keys)
    rpm = rpmkeys_accepts(path, trusted, tmp_path)
    certificates = certificates_of(trusted)
    for policy in POLICIES:
        repository = PackageRepository("r", accept=tuple(policy))
        found = verdict(path, trust_by_repository(certificates, [repository])["r"])
        assert found == expected(kind, case, policy), f"accepting {sorted(policy) or 'nothing'}"
        if rpm and found:
            assert found in STRICTER, "rpm accepts it, and no reason is given for refusing it"
        if not rpm and not found:
            assert kind in AS_RPM_6 or case in AS_RPM_6, "rpm refuses it, and no reason is given for accepting it"


def refused(path: Path, trusted: bytes, *accept: AcceptedSignature) -> VerificationError:
    """The error for a package."""
    repository = PackageRepository("r", accept=accept)
    with pytest.raises(VerificationError) as caught:
        verify_package(path, trust_by_repository(certificates_of(trusted), [repository])["r"])
    return caught.value


@pytest.mark.parametrize("trusts_both", [False, True])
def test_a_bad_signature_by_a_trusted_key_spoils_a_good_one_and_by_a_stranger_does_not(
    trusts_both: bool, keys: Keys, parts: Parts, tmp_path: Path
) -> None:
    """As rpm 6 judges its list: none by a trusted key may be bad, and others say nothing."""
    path = tmp_path / "it.rpm"
    bad = keys.eddsa.sign(parts.header + b"!")
    path.write_bytes(parts.signed({RSA_HEADER: keys.rsa.sign(parts.header)}, [bad]))
    if trusts_both:
        assert refused(path, keys.rsa.public + keys.eddsa.public).code == "package-signature-bad"
    else:
        trust = trust_by_repository(certificates_of(keys.rsa.public), [PackageRepository("r")])["r"]
        assert verify_package(path, trust) == keys.rsa.primary[-16:].lower()


def test_errors_name_the_key_its_date_and_what_cannot_be_checked(keys: Keys, parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "it.rpm"
    path.write_bytes(parts.signed({RSA_HEADER: keys.rsa.sign(parts.header, subkey=True)}))
    told = str(refused(path, keys.rsa.expired(subkey=True)))
    assert f"subkey {keys.rsa.subkey} expired on 2020-02-01" in told and "present key file" in told
    assert f"key {keys.rsa.primary} was revoked on 2020-01-01" in str(refused(path, keys.rsa.revoked()))
    path.write_bytes(parts.signed({}, [V6_SIGNATURE]))
    told = str(refused(path, keys.rsa.public))
    assert "cannot be checked by rpm" in told and "(OpenPGP v6 Ed25519/SHA512, key 6118ABE481C41473)" in told


def test_an_old_package_is_called_old_and_the_way_out_is_named(keys: Keys, parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "it.rpm"
    old = parts.without_payload_digest()
    tagged = {RSA_HEADER: keys.rsa.sign(old.header), PGP: keys.rsa.sign(old.header + old.payload, digest="SHA1")}
    path.write_bytes(old.signed(tagged))
    error = refused(path, keys.rsa.public)
    assert "old format" in str(error) and "accept: [legacy-header-payload]" in error.problems[0].hint
    error = refused(path, keys.rsa.public, AcceptedSignature.LEGACY_HEADER_PAYLOAD)
    assert error.code == "package-signature-weak" and "accept: [sha1]" in error.problems[0].hint
    path.write_bytes(old.signed({RSA_HEADER: tagged[RSA_HEADER]}))
    error = refused(path, keys.rsa.public, *AcceptedSignature)
    assert error.code == "package-old-format" and "no good signature covers its payload" in str(error)


def test_no_byte_of_a_signature_header_confuses_or_adds_trust(keys: Keys, parts: Parts, tmp_path: Path) -> None:
    """Every byte of it is anybody's to change: the package stays good, or is refused in words."""
    path = tmp_path / "it.rpm"
    untrusted = parts.signed({DSA_HEADER: keys.eddsa.sign(parts.header)}, [keys.eddsa.sign(parts.header)])
    trust = trust_by_repository(certificates_of(keys.rsa.public), [PackageRepository("r")])["r"]
    end = len(untrusted) - len(parts.header) - len(parts.payload)
    for at in range(96, end, 2):
        damaged = bytearray(untrusted)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        assert verdict(path, trust).startswith("package-"), at
