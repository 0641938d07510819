"""Digests, canonical JSON and identities."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import DiffId, Digest, HashingWriter, canonical_json, digest_file, identity
from pipeline.errors import VerificationError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "md5:" + "a" * 32,
        "a" * 64,
        "sha512:" + "a" * 128,
    ],
)
def test_what_is_no_sha256_is_refused(text: str) -> None:
    with pytest.raises(VerificationError) as caught:
        Digest.parse(text)
    assert caught.value.code == "digest-malformed"


@given(st.binary())
def test_a_digest_survives_its_text(data: bytes) -> None:
    assert Digest.parse(str(Digest.of(data))) == Digest.of(data)
    assert Digest.of(data).hex == hashlib.sha256(data).hexdigest()


def test_a_digest_is_not_equal_to_a_diff_id_of_the_same_bytes() -> None:
    assert Digest.of(b"x") != DiffId.of(b"x")


@given(st.lists(st.binary()))
def test_a_hashing_writer_counts_and_hashes_what_it_passes_on(pieces: list[bytes]) -> None:
    whole = bytearray()

    class Into:
        def write(self, data: bytes, /) -> None:
            whole.extend(data)

    writer = HashingWriter(Into())
    for piece in pieces:
        writer.write(piece)
    assert (writer.digest, writer.size, bytes(whole)) == (Digest.of(bytes(whole)), len(whole), b"".join(pieces))


@given(JSON)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: object) -> None:
    def turned(inner: object) -> object:
        if isinstance(inner, dict):
            return {key: turned(inner[key]) for key in reversed(list(inner))}
        return [turned(item) for item in inner] if isinstance(inner, list) else inner

    assert canonical_json(value) == canonical_json(turned(value))


def test_canonical_json_refuses_floats() -> None:
    with pytest.raises(TypeError, match="floats"):
        canonical_json({"a": [1, {"b": 0.5}]})


def test_an_identity_changes_with_its_step_version_and_every_input() -> None:
    base = identity("step", 1, a=1, b=[Digest.of(b"")])
    others = [
        identity("pets", 1, a=1, b=[Digest.of(b"")]),
        identity("step", 2, a=1, b=[Digest.of(b"")]),
        identity("step", 1, a=2, b=[Digest.of(b"")]),
        identity("step", 1, a=1, b=[Digest.of(b"x")]),
        identity("step", 1, a="1", b=[Digest.of(b"")]),
        identity("step", 1, a=1, b=[Digest.of(b"")], c=None),
    ]
    assert len({base, *others}) == 7
    assert base == identity("step", 1, b=(Digest.of(b""),), a=1)


def test_digest_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert digest_file(path) == Digest.of(b"content")


def test_an_identity_takes_paths_that_are_not_utf8_and_keeps_those_that_are() -> None:
    odd, other = (Path(os.fsdecode(b"/a/" + byte)) for byte in (b"\xff", b"\xfe"))
    assert len({identity("step", 1, path=one) for one in (odd, other, Path("/a/\u00ff"))}) == 3
    assert str(identity("step", 1, path="/a/é")) == str(
        Digest.of('{"inputs":{"path":"/a/é"},"step":"step","version":1}'.encode())
    )


def test_a_document_is_utf8() -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical_json({"path": os.fsdecode(b"\xff")})
