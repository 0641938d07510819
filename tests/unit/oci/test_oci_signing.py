"""Signatures and attestations: what exactly is signed, and that whatever is wrong with one is found and told."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as some

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.mirror.references import referrer_of
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.model.provenance import MaterialKind
from pipeline.oci import (
    Statement,
    StatementSubject,
    bundle_layer,
    check_signatures,
    load_signing_key,
    make_attestation,
    make_referrer,
    make_simple_signature,
    media_types,
    provenance_predicate,
    read_artifact,
    signature_payload,
    signature_tag,
    verify_bundle,
    verify_signatures,
)
from pipeline.oci import sigstore_bundle as bundles
from pipeline.oci.artifacts import EMPTY_DESCRIPTOR
from pipeline.oci.dsse import (
    Envelope,
    envelope_json,
    pre_authentication,
    read_envelope,
    sign_envelope,
)
from pipeline.oci.image_manifest import JsonReader, descriptor_json
from pipeline.oci.predicates import PROVENANCE, SIGN, SPDX
from pipeline.oci.simple_signing import SIGNATURE_ANNOTATION, SIMPLE_SIGNATURES_LIMIT
from pipeline.oci.statements import read_statement, statement_bytes
from tests.support.signing_examples import PROVENANCE_VALUE, material, signing_key

KEY = signing_key()
OTHER = load_signing_key(
    ec.derive_private_key(0x07, ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
)
IMAGE = Descriptor(media_types.MANIFEST, Digest.of(b"an image"), 8)
FOREIGN = Descriptor(media_types.MANIFEST, Digest.of(b"another image"), 13)
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
    assert codes(good.manifest, {}) == ["signature-altered"]
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


# --- provenance -------------------------------------------------------------------------------------

RESOURCE = {"name", "uri", "digest", "annotations"}
"""Of in-toto's ResourceDescriptor, what is used."""


def test_provenance_has_slsas_shape() -> None:
    """provenance.md v1.0: what is required, of which type, and where digests belong."""
    document = json.loads(provenance_predicate(PROVENANCE_VALUE))
    assert document.keys() == {"buildDefinition", "runDetails"}
    build, run = document["buildDefinition"], document["runDetails"]
    assert build.keys() == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert run.keys() == {"builder", "metadata"}
    assert all(re.fullmatch(r"https://[^\s]+", uri) for uri in (build["buildType"], run["builder"]["id"]))
    assert build["externalParameters"] == {
        "recipe": "tiny.yaml",
        "platform": "el10",
        "architecture": "x86_64",
        "options": {"compression": "zstd"},
    }
    assert not build["externalParameters"].keys() & build["internalParameters"].keys()
    assert run["builder"]["version"] == {"relbuild": "0.1.0"}
    assert run["metadata"] == {"invocationId": PROVENANCE_VALUE.invocation}
    dependencies = build["resolvedDependencies"]
    assert {one["annotations"]["kind"] for one in dependencies} >= {
        "recipe",
        "template",
        "package",
        "repomd",
        "builder",
    }
    for one in dependencies:
        assert one.keys() <= RESOURCE
        assert re.fullmatch("[0-9a-f]{64}", one["digest"]["sha256"])


def test_provenance_depends_on_no_order_and_no_clock() -> None:
    backwards = replace(PROVENANCE_VALUE, materials=PROVENANCE_VALUE.materials[::-1])
    assert provenance_predicate(backwards) == provenance_predicate(PROVENANCE_VALUE)
    timed = json.loads(provenance_predicate(replace(PROVENANCE_VALUE, started=0, finished=1_700_000_000)))
    assert timed["runDetails"]["metadata"]["startedOn"] == "1970-01-01T00:00:00Z"
    assert timed["runDetails"]["metadata"]["finishedOn"] == "2023-11-14T22:13:20Z"
    bare = json.loads(provenance_predicate(replace(PROVENANCE_VALUE, invocation="")))
    assert "metadata" not in bare["runDetails"]


def test_another_material_is_another_provenance() -> None:
    more = replace(
        PROVENANCE_VALUE, materials=(*PROVENANCE_VALUE.materials, material("glibc-2.39-1.x86_64", MaterialKind.PACKAGE))
    )
    assert provenance_predicate(more) != provenance_predicate(PROVENANCE_VALUE)


# --- bundles ----------------------------------------------------------------------------------------


def stated(kind: str = SPDX, about: Descriptor = IMAGE) -> Statement:
    return Statement(kind, (StatementSubject(about.digest, "tiny"),), b'{"spdxVersion":"SPDX-2.3"}')


GOOD = make_attestation(stated(), IMAGE, KEY)


def code(made: Artifact, blob: bytes | None = None) -> str:
    with pytest.raises(VerificationError) as caught:
        verify_bundle(made.manifest, made.blobs[1][1] if blob is None else blob, IMAGE.digest, KEY.public)
    assert caught.value.problems[0].place
    return caught.value.code


def remade(made: Artifact, **changes: object) -> Artifact:
    """With another manifest over the same bundle."""
    document = json.loads(made.manifest.data) | changes
    return replace(made, manifest=Manifest(media_types.MANIFEST, canonical_json(document)))


def rebundled(document: object) -> Artifact:
    """With another bundle, and all digests right."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    layer = Descriptor(media_types.SIGSTORE_BUNDLE, Digest.of(data), len(data))
    made = remade(GOOD, layers=[descriptor_json(layer)])
    return replace(made, blobs=(GOOD.blobs[0], (layer, data)))


def bundle() -> dict[str, dict[str, object]]:
    document: dict[str, dict[str, object]] = json.loads(GOOD.blobs[1][1])
    return document


def test_what_was_attested_comes_back() -> None:
    assert verify_bundle(GOOD.manifest, GOOD.blobs[1][1], IMAGE.digest, KEY.public) == stated()
    assert bundle_layer(GOOD.manifest) == GOOD.blobs[1][0]


def test_attesting_again_gives_the_same_manifest_and_the_clock_is_not_asked() -> None:
    assert make_attestation(stated(), IMAGE, KEY) == GOOD
    dated = read_artifact(make_attestation(stated(), IMAGE, KEY, 1_700_000_000).manifest)
    assert dated.annotation(media_types.CREATED) == "2023-11-14T22:13:20Z"
    assert read_artifact(GOOD.manifest).annotation(media_types.CREATED) == ""


def test_the_referrer_is_what_cosign_looks_for() -> None:
    noted = replace(IMAGE, annotations=(("a", "b"),))
    assert make_attestation(stated(), noted, KEY) == GOOD, "a subject is named by digest, not by what is said of it"
    said = read_artifact(GOOD.manifest)
    assert (said.subject, said.config, said.artifact_type) == (IMAGE, EMPTY_DESCRIPTOR, media_types.SIGSTORE_BUNDLE)
    assert dict(said.annotations) == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": SPDX,
    }
    referrer = referrer_of(GOOD.manifest)
    assert referrer.descriptor == replace(GOOD.manifest.descriptor, annotations=said.annotations)
    assert referrer.artifact_type == media_types.SIGSTORE_BUNDLE


def test_a_bundle_by_another_key_is_told_from_one_that_was_altered() -> None:
    assert code(make_attestation(stated(), IMAGE, OTHER)) == "signature-wrong-key"
    altered = bundle()
    altered["dsseEnvelope"]["payload"] = base64.b64encode(statement_bytes(stated(SIGN))).decode()
    assert code(rebundled(altered)) == "signature-altered"
    broken = bundle()
    broken["dsseEnvelope"]["signatures"] = [{"sig": "AAAA"}]
    assert code(rebundled(broken)) == "signature-altered"


def test_bytes_that_the_manifest_does_not_name_are_refused() -> None:
    assert code(GOOD, b"{}") == "signature-altered"
    assert code(GOOD, make_attestation(stated(SIGN), IMAGE, KEY).blobs[1][1]) == "signature-altered"


def test_an_attestation_that_was_moved_from_another_image_is_refused() -> None:
    foreign = make_attestation(stated(about=FOREIGN), FOREIGN, KEY)
    assert code(foreign) == "signature-of-another"
    assert code(remade(foreign, subject=descriptor_json(IMAGE))) == "signature-of-another", "by what was signed"
    bare = json.loads(GOOD.manifest.data)
    del bare["subject"]
    assert code(replace(GOOD, manifest=Manifest(media_types.MANIFEST, canonical_json(bare)))) == "signature-of-another"


def test_an_attestation_that_is_listed_as_another_kind_is_refused() -> None:
    notes = {"dev.sigstore.bundle.predicateType": PROVENANCE}
    assert code(remade(GOOD, annotations=notes)) == "predicate-mismatch"
    unlisted = remade(GOOD, annotations={})
    assert verify_bundle(unlisted.manifest, GOOD.blobs[1][1], IMAGE.digest, KEY.public) == stated()


def test_a_statement_about_something_else_is_not_attached() -> None:
    with pytest.raises(ValueError, match=str(IMAGE.digest)):
        make_attestation(stated(about=FOREIGN), IMAGE, KEY)


def test_a_manifest_that_is_no_bundle_is_refused() -> None:
    layer = json.loads(GOOD.manifest.data)["layers"][0]
    for changes in (
        {"artifactType": "application/octet-stream"},
        {"layers": []},
        {"layers": [layer, layer]},
        {"layers": [layer | {"mediaType": "text/plain"}]},
        {"layers": [layer | {"size": bundles.BUNDLE_LIMIT + 1}]},
        {"layers": [layer | {"digest": "sha512:00"}]},
        {"layers": "x"},
        {"config": None},
    ):
        assert code(remade(GOOD, **changes)) == "bundle-malformed", changes
    assert code(replace(GOOD, manifest=Manifest(media_types.MANIFEST, b"\xff"))) == "bundle-malformed"


def test_a_bundle_of_another_shape_is_refused() -> None:
    signature = bundle()["dsseEnvelope"]["signatures"]
    assert isinstance(signature, list)
    shapes = (
        b"",
        b"[" * 100_000,
        [],
        bundle() | {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1"},
        {name: value for name, value in bundle().items() if name != "dsseEnvelope"},
        bundle() | {"dsseEnvelope": bundle()["dsseEnvelope"] | {"payloadType": "text/plain"}},
        bundle() | {"dsseEnvelope": bundle()["dsseEnvelope"] | {"signatures": signature * 2}},
        bundle() | {"dsseEnvelope": bundle()["dsseEnvelope"] | {"signatures": []}},
        bundle() | {"dsseEnvelope": bundle()["dsseEnvelope"] | {"payload": "?"}},
    )
    for shape in shapes:
        assert code(rebundled(shape)) == "bundle-malformed", shape


def test_a_bundle_is_not_parsed_if_it_would_take_far_more_memory_than_it_has_bytes() -> None:
    many = rebundled(bundle() | {"more": [[]] * bundles.BUNDLE_NODE_LIMIT})
    with pytest.raises(VerificationError, match=f"{bundles.BUNDLE_NODE_LIMIT} values"):
        verify_bundle(many.manifest, many.blobs[1][1], IMAGE.digest, KEY.public)


HEAD = b'{"_type":"https://in-toto.io/Statement/v1","predicateType":"x",'


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b'{"_type":"x"}',
        HEAD + b'"subject":{}}',
        HEAD + b'"subject":[{"digest":{"sha256":"00"}}]}',
        HEAD + b'"predicate":[]}',
        HEAD + b'"predicate":{"a":NaN}}',
        HEAD + b'"predicate":{"a":"\\ud800"}}',
        HEAD + b'"predicate":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    ],
    ids=lambda value: str(value[-40:]),
)
def test_what_the_key_signed_but_is_no_statement_is_refused(payload: bytes) -> None:
    sealed = bundle() | {"dsseEnvelope": envelope_json(sign_envelope(media_types.IN_TOTO, payload, KEY))}
    assert code(rebundled(sealed)) == "bundle-malformed"


def test_an_attestation_that_nobody_would_read_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "BUNDLE_LIMIT", 1000)
    with pytest.raises(VerificationError) as caught:
        make_attestation(replace(stated(), predicate=canonical_json({"a": "x" * 1000})), IMAGE, KEY)
    assert caught.value.code == "bundle-too-large"


@given(some.binary(max_size=200))
def test_whatever_a_bundle_holds_is_refused_with_a_code(data: bytes) -> None:
    assert code(rebundled(data)) == "bundle-malformed"
