"""Metadata and keys of repositories that may be anything: read, or refused with a code, never an internal error."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.errors import VerificationError
from pipeline.openpgp_packets import (
    MalformedPacket,
    Packet,
    armor,
    certificate_keys,
    dearmor,
    read_signature,
    split_certificates,
)
from pipeline.repos.advisories import parse_issued, read_updateinfo
from pipeline.repos.openpgp_keys import KEYS_MOST, read_keys
from pipeline.repos.repomd import parse_metalink, parse_mirrorlist, parse_repomd, safe_location
from pipeline.repos.xml_tree import parse_xml
from pipeline.urls import (
    parse_url,
)
from tests.support.hostile_values import DIGITS, ODD_URLS, code_of

# --- XML of repositories ---------------------------------------------------------------------------

REPOMD = (
    '<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>@@</revision><data type="primary">'
    f'<checksum type="sha256">{"a" * 64}</checksum><location href="@@"/><size>@@</size>'
    f'<open-checksum type="@@">{"b" * 64}</open-checksum><open-size>@@</open-size></data></repomd>'
)
METALINK = (
    '<metalink><files><file name="repomd.xml"><verification><hash type="sha256">' + "a" * 64 + "</hash>"
    '</verification><resources><url preference="@@">@@/repodata/repomd.xml</url>'
    '<url preference="100">https://good.test/repodata/repomd.xml</url></resources></file></files></metalink>'
)
UPDATEINFO = (
    '<updates><update type="security"><id>A-1</id><title>CVE-2024-1234 @@</title><severity>@@</severity>'
    '<issued date="@@"/><references><reference type="cve" id="@@"/></references><pkglist><collection>'
    '<package name="a" epoch="@@" version="1" release="1" arch="x86_64"/></collection></pkglist></update></updates>'
)
VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from([DIGITS, f"-{DIGITS}", "-1", "0", "1e400", "NaN", "\u0663" * 30, " 5 ", "5_0", "9" * 30, "401"]),
    st.sampled_from(ODD_URLS),
    st.sampled_from(["9999-12-31T23:59:59+23:59", "0001-01-01", "10000-01-01", "2024-02-30", "../x", "/x", "a\\b", ""]),
)
ENCODINGS = ("", "utf-16", "idna", "punycode", "rot13", "utf-7", "cp037", "shift_jis", "nowhere", "hex", "undefined")


def escaped(text: str) -> str:
    kept = "".join(sign for sign in text if sign.isprintable() and not 0xD800 <= ord(sign) < 0xE000)
    return kept.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def filled(template: str, values: list[str]) -> bytes:
    parts = template.split("@@")
    return "".join(part + escaped(values[number % len(values)]) for number, part in enumerate(parts[:-1])).encode() + (
        parts[-1].encode()
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("body", [b"<a/>", b"<a>\xff\xfe</a>", b"<updates/>", b"<metadata/>", b"", b"<a"])
def test_xml_in_any_encoding_is_read_or_malformed(encoding: str, body: bytes, tmp_path: Path) -> None:
    data = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + body if encoding else body
    assert code_of(lambda: parse_xml(data, "x")) in {"", "xml-malformed"}
    (tmp_path / "u").write_bytes(data)
    assert code_of(lambda: read_updateinfo(tmp_path / "u", "r")) in {"", "metadata-malformed"}


def test_xml_that_is_nested_a_million_deep_is_refused() -> None:
    assert code_of(lambda: parse_xml(b"<a>" * 1_000_000, "x")) == "xml-refused"


@given(st.binary(max_size=200))
@example(b"<repomd>" * 100)
@example(b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>")
def test_bytes_that_are_no_xml_are_no_internal_error(data: bytes) -> None:
    for parse in (parse_repomd, parse_metalink, parse_mirrorlist):
        code_of(lambda parse=parse: parse(data, "x"))  # type: ignore[misc]


@given(st.lists(VALUES, min_size=1, max_size=6))
@example([DIGITS])
@example(["http://["])
def test_a_repomd_or_metalink_with_nonsense_in_it_is_read_or_refused(values: list[str]) -> None:
    code_of(lambda: parse_repomd(filled(REPOMD, values), "repomd.xml"))
    link = parse_metalink(filled(METALINK, values), "metalink")
    assert "https://good.test" in link.base_urls
    assert all(parse_url(url) for url in link.base_urls)


@pytest.mark.parametrize("inner", ["", f'<checksum type="md5">1</checksum><location href="{"://a:b" * 200_000}"/>'])
def test_a_record_of_a_million_characters_is_refused_with_a_short_message(inner: str) -> None:
    # Redacting takes time by the square of the length: hours for these.
    data = f'<repomd><data type="{"://a:x" * 200_000}">{inner}</data></repomd>'.encode()
    with pytest.raises(VerificationError) as caught:
        parse_repomd(data, "repomd.xml")
    assert len(str(caught.value)) < 600


def test_a_metalink_preference_of_five_thousand_digits_counts_as_none() -> None:
    link = parse_metalink(filled(METALINK, [DIGITS, "http://bad.test"]), "metalink")
    assert link.base_urls == ("https://good.test", "http://bad.test")


@given(st.lists(VALUES, min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_updateinfo_with_nonsense_in_it_is_read_or_refused(tmp_path: Path, values: list[str]) -> None:
    (tmp_path / "u").write_bytes(filled(UPDATEINFO, values))
    assert code_of(lambda: read_updateinfo(tmp_path / "u", "r")) in {"", "metadata-malformed"}


@given(st.one_of(VALUES, st.text()))
def test_no_date_of_an_advisory_is_too_strange(text: str) -> None:
    assert parse_issued(text) >= 0


@given(st.lists(st.one_of(VALUES, st.sampled_from(ODD_URLS)), max_size=5))
def test_a_mirrorlist_with_nonsense_in_it_keeps_what_is_good(lines: list[str]) -> None:
    data = "\n".join(("# mirrors", *lines, "https://good.test/")).encode(errors="surrogatepass")
    assert "https://good.test" in parse_mirrorlist(data, "list")


@given(st.one_of(VALUES, st.text()))
def test_a_location_lies_below_the_repository_or_is_refused(text: str) -> None:
    if code_of(lambda: safe_location(text, place="x")) == "":
        assert ".." not in text.split("/") and not text.startswith("/") and "://" not in text.split("/", maxsplit=1)[0]


# --- keys ------------------------------------------------------------------------------------------

BEGIN = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
END = b"-----END PGP PUBLIC KEY BLOCK-----\n"


def test_a_file_of_begun_keys_takes_no_quadratic_time() -> None:
    began = time.process_time()
    assert code_of(lambda: read_keys("r", BEGIN * 25_000, "keys")) == "key-malformed"
    assert time.process_time() - began < 5


def test_a_file_with_more_keys_than_anybody_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr("pipeline.repos.openpgp_keys._verdicts", lambda data: asked.append(data) or {})
    several = b"".join(public_key(number) for number in range(KEYS_MOST + 1))
    assert code_of(lambda: read_keys("r", several, "keys")) == "key-malformed"
    assert asked == []


def public_key(number: int) -> bytes:
    """A packet with a public key of version 4, of no use."""
    body = b"\x04" + number.to_bytes(4, "big") + b"\x01" + b"\x00\x08\xff\x00\x02\x03"
    return bytes([0xC6, len(body)]) + body


@given(st.one_of(st.binary(max_size=300), st.builds(lambda rest: public_key(1) + rest, st.binary(max_size=300))))
def test_a_file_of_any_bytes_is_keys_or_malformed(data: bytes) -> None:
    for text in (data, armor([Packet(0, b"", data)])):
        with contextlib.suppress(MalformedPacket):
            for certificate in split_certificates(text if text is data else dearmor(text)):
                for _, key in certificate_keys(certificate):
                    assert key.key_id


@given(st.binary(max_size=200))
@example(b"\x04\x00\x01\x08\x00\x01\xff")
@example(b"\x06\x00\x1b\x0a\x00\x00\x00\x02\x01\x02\x00\x00\x00\x00")
@example(b"\x03\x05\x00" + bytes(20))
def test_a_signature_of_any_bytes_is_read_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        assert len(read_signature(data).issuer) in {0, 16}


@given(st.binary(max_size=100))
@example(b"\n\n=\xff")
@example("\u00e4".encode())
def test_armor_of_any_bytes_is_read_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        dearmor(BEGIN + b"\n" + data + b"\n" + END)
