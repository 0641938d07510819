"""Attestations: provenance, bundles, and that whatever is wrong with one is found and told."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.mirror.references import referrer_of
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Artifact, Manifest
from pipeline.model.provenance import AttestedBuild, MaterialKind
from pipeline.oci import (
    Statement,
    StatementSubject,
    bundle_layer,
    make_attestation,
    media_types,
    provenance_predicate,
    read_artifact,
    read_attested_build,
    verify_bundle,
)
from pipeline.oci import sigstore_bundle as bundles
from pipeline.oci.artifacts import EMPTY_DESCRIPTOR
from pipeline.oci.dsse import (
    envelope_json,
    sign_envelope,
)
from pipeline.oci.image_manifest import descriptor_json
from pipeline.oci.predicates import PROVENANCE, SIGN, SPDX
from pipeline.oci.statements import BUILD_TYPE, BUILDER, statement_bytes
from tests.support.signing_examples import FOREIGN, IMAGE, KEY, OTHER, PROVENANCE_VALUE, material

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


def read_build(predicate: bytes) -> AttestedBuild | None:
    """What is read of a provenance that a former key signed."""
    made = make_attestation(Statement(PROVENANCE, (StatementSubject(IMAGE.digest),), predicate), IMAGE, KEY)
    trusted = replace(OTHER.public, former=(KEY.public,))
    return read_attested_build(verify_bundle(made.manifest, made.blobs[1][1], IMAGE.digest, trusted))


def test_who_built_what_is_read_with_the_key_that_signed_it() -> None:
    lock, included = material("tiny.lock", MaterialKind.LOCK), material("base.yaml", MaterialKind.RECIPE)
    value = replace(PROVENANCE_VALUE, materials=(*PROVENANCE_VALUE.materials, lock, included), started=0)
    build = read_build(provenance_predicate(value))
    assert build == AttestedBuild(
        signer=KEY.public.fingerprint,
        builder=BUILDER,
        build_type=BUILD_TYPE,
        versions=(("relbuild", "0.1.0"),),
        platform="el10",
        architecture="x86_64",
        recipe=PROVENANCE_VALUE.recipe,
        lock=lock,
        started="1970-01-01T00:00:00Z",
    )


def test_nothing_is_read_of_a_provenance_that_nobody_verified() -> None:
    statement = Statement(PROVENANCE, (StatementSubject(IMAGE.digest),), provenance_predicate(PROVENANCE_VALUE))
    assert read_attested_build(statement) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"buildDefinition": None},
        {"buildDefinition": {"externalParameters": {}, "resolvedDependencies": [7]}},
        {"buildDefinition": {"externalParameters": {}, "resolvedDependencies": [{"annotations": {"kind": "lock"}}]}},
        {"runDetails": {"builder": {"id": 7}}},
        {"runDetails": {}},
    ],
)
def test_a_provenance_of_another_form_is_no_error(changed: dict[str, object]) -> None:
    """`cosign attest` signs any JSON under this type; it is verified, and not shown."""
    document = json.loads(provenance_predicate(PROVENANCE_VALUE))
    assert read_build(canonical_json({**document, **changed})) is None


def test_a_provenance_of_another_builder_is_read_as_far_as_it_says_the_same() -> None:
    document = {
        "buildDefinition": {"externalParameters": {"recipe": ["x"], "source": "git"}},
        "runDetails": {"builder": {"id": "https://builder.example"}},
    }
    assert read_build(canonical_json(document)) == AttestedBuild(KEY.public.fingerprint, "https://builder.example")


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
        HEAD + b'"predicate":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
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
