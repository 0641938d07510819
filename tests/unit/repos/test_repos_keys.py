"""Files of keys as vendors publish them: armored or not, several keys in one, expired, revoked, of no use."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.beneath import logged_reads
from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.signing_key import AcceptedSignature, KeyFault
from pipeline.openpgp_packets import (
    MalformedPacket,
    Packet,
    armor,
    certificate_keys,
    dearmor,
    prune_certificate,
    read_packets,
    read_public_key,
    read_signature,
    split_certificates,
)
from pipeline.prepare.package_trust import trust_by_repository
from pipeline.repos import LOCAL_REPOSITORY, RepositoryKey, load_keys, read_keys, verify_detached
from pipeline.repos.document_fetcher import DocumentFetcher
from pipeline.store import Store
from tests.support.journal import Told
from tests.support.openpgp import V6_KEY, V6_SIGNATURE, KeyMaker, key_maker


@pytest.fixture(scope="module")
def makers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KeyMaker, KeyMaker]]:
    folder = tmp_path_factory.mktemp("gpg")
    with key_maker(folder / "one") as one, key_maker(folder / "two") as two:
        yield one, two


def read(data: bytes) -> tuple[tuple[RepositoryKey, ...], list[str]]:
    told: list[str] = []
    return read_keys("r", data, "keys.gpg", told.append), told


def one_certificate(key: RepositoryKey) -> bool:
    """Return whether its armor holds it alone, which is what rpm can read."""
    (packets,) = split_certificates(dearmor(key.armored))
    return read_public_key(packets[0].body).fingerprint == key.fingerprint


@pytest.mark.parametrize("form", ["binary keyring", "one block", "several blocks", "with line ends of Windows"])
def test_every_key_of_a_file_is_given_alone_in_its_armor(makers: tuple[KeyMaker, KeyMaker], form: str) -> None:
    one, two = makers
    data = {
        "binary keyring": one.binary + two.binary,
        "one block": armor(list(read_packets(one.binary + two.binary))),
        "several blocks": b"comment\n" + one.public + b"\n" + two.public,
        "with line ends of Windows": (one.public + two.public).replace(b"\n", b"\r\n"),
    }[form]
    keys, told = read(data)
    assert {key.fingerprint for key in keys} == {one.primary, two.primary}
    assert all(map(one_certificate, keys)) and told == []
    assert {dearmor(key.armored) for key in keys} == {one.binary, two.binary}


def test_a_key_alone_in_its_block_keeps_its_armor_so_that_locks_stay_fresh(makers: tuple[KeyMaker, KeyMaker]) -> None:
    one, two = makers
    keys, _ = read(one.public + two.public)
    assert {key.armored for key in keys} == {one.public, two.public}


def read_differently(pinned: bytes, other: bytes, blank: bytes) -> bytes:
    """A block with the packets of `pinned` and a private packet, or to a reader that skips a line, those of `other`."""
    private = b"\xfc\xff"  # Type 60, with a length of five octets.
    size = len(other) + -(len(pinned) + 6) % 3
    head = pinned + private + size.to_bytes(4, "big") + bytes(size - len(other))
    begin, _, *lines = armor(list(read_packets(other))).split(b"\n")
    return b"\n".join((begin, b"Comment: x" + blank + base64.b64encode(head), b"", *lines))


def test_rpm_gets_the_certificate_that_was_pinned_whatever_armor_its_file_has(
    makers: tuple[KeyMaker, KeyMaker],
) -> None:
    """rpm ends a header line of armor at a line feed; a block could show each reader another key."""
    one, two = makers
    pinned = [one.primary]
    for blank in (b"\r\r", b"\r\n\r"):
        block = read_differently(one.binary, two.binary, blank)
        with pytest.raises(VerificationError, match="a carriage return stands alone") as caught:
            read_keys("r", block, "keys.gpg", fingerprints=pinned)
        assert caught.value.code == "key-malformed"
    told = one.public.replace(b"-----\n\n", b"-----\nComment: x\n\x0b\n", 1)
    (key,) = read_keys("r", told, "keys.gpg", fingerprints=pinned)
    assert key.armored == told, "the identity in locks stays"
    assert trust_by_repository([key], [PackageRepository("r")])["r"].certificates == (one.public,)


def test_armor_is_what_gpg_makes(makers: tuple[KeyMaker, KeyMaker]) -> None:
    assert armor(list(read_packets(makers[0].binary))) == makers[0].public


@pytest.mark.parametrize("subkey", [False, True])
def test_what_expired_is_told_with_fingerprint_and_date_and_does_not_count(
    makers: tuple[KeyMaker, KeyMaker], subkey: bool
) -> None:
    one = makers[0]
    ((key,), told) = read(one.expired(subkey=subkey))
    (unusable,) = key.unusable
    gone = one.subkey if subkey else one.primary
    assert (unusable.fingerprint, unusable.fault, unusable.subkey) == (gone, KeyFault.EXPIRED, subkey)
    assert told == [f"keys.gpg: {unusable}; no signature by it counts"] and f"{gone} expired on 2020-02-01" in told[0]
    counting = trust_by_repository([key], [PackageRepository("r")])["r"]
    assert counting.unusable == (unusable,)
    assert [left(one) for one in counting.certificates] == ([[one.primary]] if subkey else [])


@pytest.mark.parametrize("subkey", [False, True])
def test_what_was_revoked_does_not_count_and_disables_no_other_key_of_its_file(
    makers: tuple[KeyMaker, KeyMaker], subkey: bool
) -> None:
    one, two = makers
    keys, told = read(two.public + one.revoked(subkey=subkey))
    gone = one.subkey if subkey else one.primary
    assert len(told) == 1 and f"{gone} was revoked on 2020-01-01" in told[0]
    counting = trust_by_repository(keys, [PackageRepository("r")])["r"].certificates
    kept = [[two.primary, two.subkey], *([[one.primary]] if subkey else [])]
    assert sorted(map(left, counting)) == sorted(kept)


def left(certificate: bytes) -> list[str]:
    (packets,) = split_certificates(dearmor(certificate))
    return [key.fingerprint for _, key in certificate_keys(packets)]


def test_with_its_primary_key_a_subkey_falls_and_is_found_by_its_id(makers: tuple[KeyMaker, KeyMaker]) -> None:
    one = makers[0]
    ((key,), _) = read(one.expired())
    assert key.unusable[0].key_ids == (one.primary[-16:], one.subkey[-16:])


def test_a_locks_packages_outlive_the_date_of_their_key_but_not_its_revocation(
    makers: tuple[KeyMaker, KeyMaker],
) -> None:
    one, two = makers
    keys, _ = read(one.expired() + two.revoked())
    (expired,) = next(key for key in keys if key.fingerprint == one.primary).unusable

    def trusted(locked_at: int | None) -> list[list[str]]:
        trust = trust_by_repository(keys, [PackageRepository("r")], locked_at=locked_at)["r"]
        return [left(certificate) for certificate in trust.certificates]

    assert trusted(expired.since - 1) == [[one.primary, one.subkey]], "built when the key was good"
    assert trusted(expired.since + 1) == trusted(None) == []


@pytest.mark.parametrize("revoked", [True, False])
def test_a_subkey_does_not_come_back_when_its_primary_key_expires(
    makers: tuple[KeyMaker, KeyMaker], revoked: bool
) -> None:
    one = makers[0]
    ((key,), told) = read(one.expired_with_subkey_gone(revoked=revoked))
    primary, subkey = key.unusable
    fault = KeyFault.REVOKED if revoked else KeyFault.EXPIRED
    assert (primary.fingerprint, primary.fault) == (one.primary, KeyFault.EXPIRED)
    assert (subkey.fingerprint, subkey.fault, subkey.subkey) == (one.subkey, fault, True)
    assert told == [f"keys.gpg: {primary}; no signature by it counts"]

    def trusted(locked_at: int | None, *keys: RepositoryKey) -> set[str]:
        trust = trust_by_repository(keys, [PackageRepository("r")], locked_at=locked_at)["r"]
        return {name for certificate in trust.certificates for name in left(certificate)}

    assert trusted(primary.since - 1, key) == {one.primary}
    assert trusted(None, key) == set()
    (older,), _ = read(one.public)
    kept = {one.primary} if revoked else {one.primary, one.subkey}
    assert trusted(None, older, key) == trusted(primary.since - 1, older, key) == kept
    if not revoked:
        assert trusted(subkey.since - 1, key) == {one.primary, one.subkey}


def test_one_key_with_another_date_in_two_files_counts_by_the_later(makers: tuple[KeyMaker, KeyMaker]) -> None:
    one = makers[0]
    keys, told = read(one.expired() + one.public)
    assert [key.fingerprint for key in keys] == [one.primary] * 2 and len(told) == 1
    assert trust_by_repository(keys, [PackageRepository("r")])["r"].certificates == (one.public,)


@pytest.mark.parametrize("subkey", [False, True])
def test_a_file_from_before_a_revocation_does_not_undo_it(makers: tuple[KeyMaker, KeyMaker], subkey: bool) -> None:
    one = makers[0]
    keys, _ = read(one.public + one.revoked(subkey=subkey))
    counting = trust_by_repository(keys, [PackageRepository("r")])["r"].certificates
    assert {key for certificate in counting for key in left(certificate)} == ({one.primary} if subkey else set())


def test_a_key_that_nothing_here_reads_is_named_and_the_others_count(makers: tuple[KeyMaker, KeyMaker]) -> None:
    one = makers[0]
    keys, told = read(one.public + armor([Packet(6, b"", V6_KEY)]))
    v6 = read_public_key(V6_KEY[2:])
    assert [one.fingerprint for key in keys for one in key.unusable] == [v6.fingerprint]
    assert len(told) == 1 and f"key {v6.fingerprint} cannot be used here: it is of OpenPGP v6" in told[0]
    assert trust_by_repository(keys, [PackageRepository("r")])["r"].certificates == (one.public,)


def test_a_block_that_is_damaged_is_named_and_the_others_count(makers: tuple[KeyMaker, KeyMaker]) -> None:
    one, two = makers
    damaged = armor([Packet(6, b"", two.binary[:50])])
    keys, told = read(one.public + damaged)
    assert [key.fingerprint for key in keys] == [one.primary]
    assert told == ["keys.gpg: block 2: it ends in the middle of a packet; this block is ignored"]


@pytest.mark.parametrize("data", [b"", b"no key", b"\x99", b"\xc2\x01\x04", V6_SIGNATURE])
def test_what_is_no_key_is_refused_with_the_name_of_its_file(data: bytes) -> None:
    with pytest.raises(VerificationError, match=r"keys\.gpg has no OpenPGP public key") as caught:
        read(data)
    assert caught.value.code == "key-malformed" and "armored" in caught.value.problems[0].hint


def test_what_does_not_count_is_warned_of_once(makers: tuple[KeyMaker, KeyMaker], tmp_path: Path, store: Store) -> None:
    (tmp_path / "key").write_bytes(makers[0].expired())
    repositories = tuple(PackageRepository(name, keys=(str(tmp_path / "key"),)) for name in ("a", "b"))
    told = Told()
    keys = load_keys(Platform("p", repositories), "x86_64", variables={}, store=store, progress=told)
    assert [key.repository for key in keys] == ["a", "b"]
    assert len(told.warnings) == 1 and makers[0].primary in told.warnings[0]


def test_a_key_by_a_files_url_is_among_what_was_read(
    makers: tuple[KeyMaker, KeyMaker], tmp_path: Path, store: Store
) -> None:
    """As vendors' .repo files name them; when it changes, a build is no longer the same."""
    file = tmp_path / "a key"
    file.write_bytes(makers[0].public)
    platform = Platform("p", (PackageRepository("r", keys=(file.as_uri(),)),))
    with logged_reads() as log:
        load_keys(platform, "x86_64", variables={}, store=store)
    assert log.contents == {str(file): {Digest.of(makers[0].public).hex}}


def test_the_kept_copy_of_a_key_is_among_what_was_read_offline(makers: tuple[KeyMaker, KeyMaker], store: Store) -> None:
    """Another build may have kept a newer one since, such as one with a revocation."""
    url = "https://keys.example/key"
    platform = Platform("p", (PackageRepository("r", keys=(url,)),))
    read: list[dict[str, set[str]]] = []
    for maker in makers:
        DocumentFetcher(store).keep(url, maker.public)
        with logged_reads() as log:
            load_keys(platform, "x86_64", variables={}, store=store, offline=True)
        read.append(log.contents)
    assert len(read[0]) == 1 and read[0].keys() == read[1].keys() and read[0] != read[1]


def test_what_a_repository_accepts_is_its_own_and_any_of_it_goes_for_a_package_by_path() -> None:
    old = PackageRepository("old", accept=(AcceptedSignature.LEGACY_HEADER_PAYLOAD,))
    trusts = trust_by_repository([], [PackageRepository("new"), old])
    assert {name: sorted(trust.accept) for name, trust in trusts.items()} == {
        "new": [],
        "old": ["legacy-header-payload"],
        LOCAL_REPOSITORY: ["legacy-header-payload"],
    }


def test_armor_without_its_empty_line_is_told_from_other_damage(makers: tuple[KeyMaker, KeyMaker]) -> None:
    armored = makers[0].public
    assert dearmor(armored) == makers[0].binary
    with pytest.raises(MalformedPacket, match="the empty line between its head and its content is missing"):
        dearmor(armored.replace(b"\n\n", b"\n"))


def test_of_what_a_server_hands_out_only_the_pinned_keys_count(
    makers: tuple[KeyMaker, KeyMaker], tmp_path: Path, store: Store
) -> None:
    one, two = makers
    file = tmp_path / "keys.gpg"
    file.write_bytes(dearmor(one.expired()) + two.binary)

    def loaded(*fingerprints: str) -> list[str]:
        repository = PackageRepository("r", keys=(str(file),), fingerprints=fingerprints)
        return [
            key.fingerprint
            for key in load_keys(Platform("p", (repository,)), "x86_64", variables={}, store=store, progress=told)
        ]

    told = Told()
    assert loaded(two.primary) == [two.primary] and told.warnings == [], "what else is there is nobody's business"
    assert loaded(one.primary, two.primary) == sorted((one.primary, two.primary)) and len(told.warnings) == 1
    with pytest.raises(VerificationError) as caught:
        loaded("A" * 40, two.subkey)
    assert caught.value.code == "key-not-pinned" and "keys.gpg" in str(caught.value)


@pytest.mark.parametrize("subkey", [False, True])
def test_a_file_from_before_a_revocation_does_not_undo_it_for_metadata(
    makers: tuple[KeyMaker, KeyMaker], subkey: bool
) -> None:
    one = makers[0]
    data = b"<repomd/>"
    signature = one.sign(data, subkey=subkey)
    older, revoked = one.public, one.revoked(subkey=subkey)
    assert verify_detached(data, signature, read(older)[0], name="repomd.xml") == one.primary
    comment = b"-----\nComment: a\n\n"  # Armor with a comment sorts after armor without.
    for files in (
        (older, revoked.replace(b"-----\n\n", comment, 1)),
        (older.replace(b"-----\n\n", comment, 1), revoked),
    ):
        keys = [key for file in files for key in read(file)[0]]
        with pytest.raises(VerificationError, match="was revoked on 2020-01-01") as caught:
            verify_detached(data, signature, keys, name="repomd.xml")
        assert caught.value.code == "metadata-signature-bad"


def test_metadata_signed_by_an_expired_key_is_refused_and_one_with_a_later_date_counts(
    makers: tuple[KeyMaker, KeyMaker],
) -> None:
    one = makers[0]
    data = b"<repomd/>"
    expired, _ = read(one.expired())
    with pytest.raises(VerificationError, match=f"{one.primary} expired on 2020-02-01"):
        verify_detached(data, one.sign(data), expired, name="repomd.xml")
    both = (*expired, *read(one.public)[0])
    assert verify_detached(data, one.sign(data), both, name="repomd.xml") == one.primary


# --- packets -----------------------------------------------------------------------------------------------


def test_signatures_name_version_algorithm_hash_and_issuer(makers: tuple[KeyMaker, KeyMaker]) -> None:
    one = makers[0]
    (packet,) = read_packets(one.sign(b"data", subkey=True))
    said = read_signature(packet.body)
    assert (str(said), said.issuer, said.revokes) == ("OpenPGP v4 EdDSA/SHA256", one.subkey[-16:], False)
    (packet,) = read_packets(V6_SIGNATURE)
    assert (str(read_signature(packet.body)), read_signature(packet.body).issuer) == (
        "OpenPGP v6 Ed25519/SHA512",
        "6118ABE481C41473",
    )


def test_the_fingerprint_of_a_v6_key_is_that_of_the_specification() -> None:
    """RFC 9580, A.3: the sample certificate's primary key."""
    body = bytes.fromhex("0663877fe31b00000020f94da7bb48d60a61e567706a6587d0331999bb9d891a08242ead84543df895a3")
    key = read_public_key(body)
    assert key.fingerprint == "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
    assert key.key_id == "CB186C4F0609A697"


def test_packets_of_old_and_new_form_and_all_widths_are_read() -> None:
    body = bytes(300)
    forms = (
        b"\x99\x01\x2c" + body,  # old form, two octets
        b"\x9a\x00\x00\x01\x2c" + body,  # old form, four octets
        b"\xc6\xc0\x6c" + body,  # new form, two octets
        b"\xc6\xff\x00\x00\x01\x2c" + body,  # new form, five octets
    )
    for raw in forms:
        assert list(read_packets(raw)) == [Packet(6, body, raw)]
        with pytest.raises(MalformedPacket):
            list(read_packets(raw[:-1]))
    with pytest.raises(MalformedPacket, match="parts"):
        list(read_packets(b"\xc6\xe1\x00"))


def test_a_certificate_loses_the_packets_of_keyrings_and_of_the_keys_that_go(
    makers: tuple[KeyMaker, KeyMaker],
) -> None:
    one = makers[0]
    trust_packet = b"\xb0\x02\x00\x00"  # As `pubring.gpg` of GnuPG 1 has them.
    with_trust = armor([Packet(0, b"", one.binary + trust_packet)])
    assert dearmor(prune_certificate(with_trust, ())) == one.binary
    assert prune_certificate(one.public.replace(b"\n\n", b"\nComment: x\n\n", 1), ()) == one.public
    assert left(prune_certificate(one.public, {one.subkey})) == [one.primary]
    assert prune_certificate(one.public, {one.primary}) == b""


def test_packets_of_other_types_never_reach_rpm_and_are_named(makers: tuple[KeyMaker, KeyMaker]) -> None:
    one = makers[0]
    for kind in (8, 11, 18, 20, 60):  # compressed and literal data, encrypted data, private use
        strange = bytes([0xC0 | kind, 2, 1, 2])
        told: list[str] = []
        (key,) = read_keys("r", armor([Packet(0, b"", one.binary + strange)]), "KEY", told.append)
        assert told == [f"KEY: the key {one.primary} stands with packets of types {kind}, left out"]
        assert dearmor(prune_certificate(key.armored, ())) == one.binary
