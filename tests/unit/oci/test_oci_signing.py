"""Signatures: what exactly is signed, and that whatever is wrong with one is found and told. Attestations have their
own file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import (
    Statement,
    StatementSubject,
    check_signatures,
    make_referrer,
    make_simple_signature,
    media_types,
    read_artifact,
    signature_payload,
    signature_tag,
    verify_signatures,
)
from pipeline.oci.dsse import (
    Envelope,
    envelope_json,
    pre_authentication,
    read_envelope,
    sign_envelope,
)
from pipeline.oci.image_manifest import JsonReader, descriptor_json
from pipeline.oci.predicates import SPDX
from pipeline.oci.simple_signing import SIGNATURE_ANNOTATION, SIMPLE_SIGNATURES_LIMIT
from pipeline.oci.statements import read_statement, statement_bytes
from tests.support.signing_examples import FOREIGN, IMAGE, KEY, OTHER

NAME = "mirror.example:5000/products/tiny"


# --- simple signing ---------------------------------------------------------------------------------


def payloads(*artifacts: Artifact) -> Mapping[Digest, bytes]:
    return {descriptor.digest: data for artifact in artifacts for descriptor, data in artifact.blobs}


def codes(manifest: Manifest, found: Mapping[Digest, bytes], identity: str | None = None) -> list[str | None]:
    checked = check_signatures(manifest, found, IMAGE.digest, KEY.public, identity)
    return [one.problem and one.problem.code for one in checked]


def test_the_payload_is_in_cosigns_very_bytes() -> None:
    assert signature_payload(IMAGE.digest, NAME) == (
        b'{"critical":{"identity":{"docker-reference":"mirror.example:5000/products/tiny"},"image":'
        b'{"docker-manifest-digest":"%b"},"type":"cosign container image signature"},"optional":null}'
        % str(IMAGE.digest).encode()
    )
    assert signature_tag(IMAGE.digest) == f"sha256-{IMAGE.digest.hex}.sig"


def test_signing_again_changes_nothing() -> None:
    first = make_simple_signature(IMAGE.digest, NAME, KEY)
    assert make_simple_signature(IMAGE.digest, NAME, KEY) == first
    assert make_simple_signature(IMAGE.digest, NAME, KEY, first.manifest) == Artifact(first.manifest)


def test_other_signatures_are_kept_and_what_is_new_comes_last() -> None:
    theirs = make_simple_signature(IMAGE.digest, NAME, OTHER)
    both = make_simple_signature(IMAGE.digest, NAME, KEY, theirs.manifest)
    moved = make_simple_signature(IMAGE.digest, "second.example/tiny", KEY, both.manifest)
    layers = read_artifact(moved.manifest).layers
    assert layers[:1] == read_artifact(theirs.manifest).layers
    assert layers[:2] == read_artifact(both.manifest).layers
    found = payloads(theirs, both, moved)
    assert codes(moved.manifest, found) == ["signature-wrong-key", None, None]
    config = json.loads(moved.blobs[0][1])
    assert config["rootfs"]["diff_ids"] == [str(one.digest) for one in layers]
    for again in (NAME, "second.example/tiny"):
        assert make_simple_signature(IMAGE.digest, again, KEY, moved.manifest).manifest == moved.manifest


def test_a_copy_keeps_its_old_name_which_is_told_where_the_new_one_is_expected() -> None:
    made = make_simple_signature(IMAGE.digest, NAME, KEY)
    verify = (made.manifest, payloads(made), IMAGE.digest, KEY.public)
    assert [one.identity for one in verify_signatures(*verify)] == [NAME]
    for expected in (NAME, f"{NAME}:1.0", f"{NAME}@{IMAGE.digest}"):
        assert verify_signatures(*verify, expected)
    for expected in ("second.example/products/tiny", "mirror.example/products/tiny", f"{NAME}2", "mirror.example"):
        with pytest.raises(VerificationError) as caught:
            verify_signatures(*verify, expected)
        assert caught.value.code == "signature-other-identity"
        assert NAME in str(caught.value)


def test_what_is_wrong_with_a_signature_is_told() -> None:
    good, foreign = make_simple_signature(IMAGE.digest, NAME, KEY), make_simple_signature(FOREIGN.digest, NAME, KEY)
    assert codes(good.manifest, payloads(good)) == [None]
    assert codes(make_simple_signature(IMAGE.digest, NAME, OTHER).manifest, payloads(good)) == ["signature-wrong-key"]
    assert codes(foreign.manifest, payloads(foreign)) == ["signature-of-another"]
    assert codes(good.manifest, {}) == ["signature-payload-missing"]
    (payload,) = read_artifact(good.manifest).layers
    assert codes(good.manifest, {payload.digest: foreign.blobs[1][1]}) == ["signature-altered"]


def relayered(made: Artifact, **changes: object) -> Manifest:
    document = json.loads(made.manifest.data)
    document["layers"][0].update(changes)
    return Manifest(media_types.MANIFEST, canonical_json(document))


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": {}},
        {"annotations": {SIGNATURE_ANNOTATION: "not base64!"}},
        {"annotations": {SIGNATURE_ANNOTATION: "sígned"}},
        {"mediaType": "application/octet-stream"},
        {"size": 1 << 30},
    ],
    ids=str,
)
def test_a_layer_that_is_no_signature_is_told(changes: dict[str, object]) -> None:
    made = make_simple_signature(IMAGE.digest, NAME, KEY)
    assert codes(relayered(made, **changes), payloads(made)) == ["signature-malformed"]


@pytest.mark.parametrize(
    "payload",
    [
        signature_payload(IMAGE.digest, NAME).replace(b"cosign", b"atomic"),
        b"",
        b"[]",
        b'{"critical":null}',
        b'{"critical":{"type":"atomic container signature"}}',
        b"[" * 100_000,
    ],
    ids=lambda value: value[:20].decode(),
)
def test_a_payload_that_says_something_else_is_refused_though_the_key_signed_it(payload: bytes) -> None:
    notes = ((SIGNATURE_ANNOTATION, base64.b64encode(KEY.sign(payload)).decode()),)
    layer = Descriptor(media_types.SIMPLE_SIGNING, Digest.of(payload), len(payload), notes)
    made = make_referrer("x", [], IMAGE)
    document = json.loads(made.manifest.data) | {"layers": [descriptor_json(layer)]}
    manifest = Manifest(media_types.MANIFEST, canonical_json(document))
    assert codes(manifest, {layer.digest: payload}) == ["signature-malformed"]


def test_one_good_signature_is_enough_and_none_tells_the_nearest_reason_first() -> None:
    theirs = make_simple_signature(IMAGE.digest, NAME, OTHER)
    foreign = make_simple_signature(FOREIGN.digest, NAME, KEY, theirs.manifest)
    with pytest.raises(VerificationError) as caught:
        verify_signatures(foreign.manifest, payloads(theirs, foreign), IMAGE.digest, KEY.public)
    assert [one.code for one in caught.value.problems] == ["signature-of-another", "signature-wrong-key"]
    good = make_simple_signature(IMAGE.digest, NAME, KEY, foreign.manifest)
    (held,) = verify_signatures(good.manifest, payloads(theirs, foreign, good), IMAGE.digest, KEY.public)
    assert held.digest == IMAGE.digest


def test_no_signature_at_all_and_too_many_are_told() -> None:
    empty = make_referrer("x", [], IMAGE).manifest
    with pytest.raises(VerificationError) as caught:
        verify_signatures(empty, {}, IMAGE.digest, KEY.public)
    assert caught.value.code == "signature-missing"
    made = make_simple_signature(IMAGE.digest, NAME, KEY)
    document = json.loads(made.manifest.data)
    document["layers"] *= SIMPLE_SIGNATURES_LIMIT + 1
    many = Manifest(media_types.MANIFEST, canonical_json(document))
    with pytest.raises(VerificationError) as caught:
        check_signatures(many, {}, IMAGE.digest, KEY.public)
    assert caught.value.code == "signatures-too-many"
    with pytest.raises(VerificationError) as caught:
        make_simple_signature(IMAGE.digest, "elsewhere.example/tiny", KEY, many)
    assert caught.value.code == "signatures-too-many"


# --- envelopes and statements -----------------------------------------------------------------------


def test_what_an_envelope_signs_is_the_specifications_example() -> None:
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pre_authentication("typ\u00e9", b"") == "DSSEv1 5 typ\u00e9 0 ".encode()


@given(some.text(max_size=20), some.binary(max_size=50))
def test_an_envelope_is_read_as_it_was_written_and_holds_for_its_key_alone(kind: str, payload: bytes) -> None:
    kind = kind.encode(errors="replace").decode()
    sealed = sign_envelope(kind, payload, KEY)
    read = read_envelope(JsonReader(json.loads(canonical_json(envelope_json(sealed))), "envelope"))
    assert read == sealed
    assert read.signed_by(KEY.public)
    assert not read.signed_by(OTHER.public)
    assert not replace(read, payload=payload + b"x").signed_by(KEY.public)
    assert not replace(read, payload_type=kind + "x").signed_by(KEY.public)


@given(some.binary(max_size=30), some.text(max_size=10), some.text(max_size=10))
def test_nothing_moves_between_type_and_payload_of_what_is_signed(payload: bytes, kind: str, other: str) -> None:
    kind, other = (text.encode(errors="replace").decode() for text in (kind, other))
    if kind != other:
        assert pre_authentication(kind, payload) != pre_authentication(other, payload)
    if other:
        assert pre_authentication(kind, other.encode() + payload) != pre_authentication(kind + other, payload)


def test_both_alphabets_of_base64_are_read() -> None:
    payload = b"\xfb\xff\xfe"
    document = {"payloadType": "x", "payload": "-__-", "signatures": [{"sig": "AA=="}]}
    assert read_envelope(JsonReader(document, "envelope")) == Envelope("x", payload, (b"\0",))


def test_a_statement_keeps_its_predicate_byte_for_byte() -> None:
    predicate = canonical_json({"a": [1, 2, {"ü": None}], "z": "\u2028"})
    made = Statement(SPDX, (StatementSubject(IMAGE.digest, "tiny"), StatementSubject(FOREIGN.digest)), predicate)
    data = statement_bytes(made)
    assert data == canonical_json(json.loads(data)), "it is canonical as a whole"
    assert predicate in data
    assert read_statement(data) == made


@pytest.mark.parametrize("predicate", [b"[]", b"1", b'{"a":NaN}', b'{},"predicateType":"x","a":{}', b""])
def test_a_predicate_that_is_not_one_json_object_cannot_be_stated(predicate: bytes) -> None:
    with pytest.raises(ValueError):
        statement_bytes(Statement(SPDX, (StatementSubject(IMAGE.digest),), predicate))


def test_a_number_of_others_that_is_no_integer_does_not_keep_their_statement_from_being_read() -> None:
    document = {"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "x", "predicate": {"score": 9.8}}
    document["subject"] = [{"digest": {"sha1": "00"}}, {"digest": {"sha256": IMAGE.digest.hex}}]
    read = read_statement(json.dumps(document).encode())
    assert read == Statement("x", (StatementSubject(IMAGE.digest),), b'{"score":9.8}')
