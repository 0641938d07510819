"""A publication is recognised if the registry answers as it did; else what is missing there is put there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.cli import publish_run, remembered_publications
from tests.support.published_twice import Publisher
from tests.support.registry_fake import digest_of


def test_an_unchanged_publication_is_recognised_and_says_what_an_ordinary_one_says(to_each: Publisher) -> None:
    publisher = to_each
    status, answer, said = publisher.publish()
    assert (status, len(publisher.ordinary)) == (0, 0)
    assert {method for method, _, _ in publisher.registry.requests} <= {"HEAD", "GET"}
    assert sum(answer.pop("requests").values()) == len(publisher.registry.requests)
    again, ordinary, told = publisher.publish("--read-back")
    assert (again, len(publisher.ordinary)) == (0, 1)
    ordinary.pop("requests")
    assert (answer, said) == (ordinary, told)
    assert publisher.recognised()


def test_it_asks_all_that_an_ordinary_one_asks_but_for_signed_payloads(
    to_each: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = to_each
    assert publisher.recognised()
    asked = publisher.asked()
    monkeypatch.setattr(remembered_publications, "LIFETIME", 0)
    assert not publisher.recognised()
    payloads = {path for path in publisher.asked() - asked if "/blobs/" in path}
    assert publisher.asked() <= asked | payloads
    assert len(payloads) == 1 + 5, "of the signature, and of each attestation"


@pytest.mark.parametrize("when", ["read back", "a day later"])
def test_a_payload_that_is_lost_is_put_there_by_an_ordinary_publication(
    publisher: Publisher, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publisher.recognised()
    held = publisher.held
    (signature,) = (digest for tag, digest in held.tags.items() if tag.endswith(".sig"))
    lost = json.loads(held.manifests[signature][1])["layers"][0]["digest"]
    whole = held.blobs.pop(lost)
    if when == "a day later":
        monkeypatch.setattr(remembered_publications, "LIFETIME", 0)
    status, _, _ = publisher.publish(*(["--read-back"] if when == "read back" else []))
    assert (status, held.blobs[lost]) == (0, whole)


def _move_tag(publisher: Publisher) -> None:
    """Another image, which somebody else pushed."""
    other, held = publisher.maker.image("0.9"), publisher.held
    held.manifests[str(other.digest)] = (other.manifest_descriptor.media_type, other.manifest_bytes)
    held.blobs[str(other.config_descriptor.digest)] = other.config_bytes
    held.tags["1"] = str(other.digest)


def _drop_attestation(publisher: Publisher) -> None:
    del publisher.held.manifests[publisher.of(b"spdx")]


def _drop_statement(publisher: Publisher) -> None:
    del publisher.held.manifests[publisher.of(b'"org.relbuild.move.number"')]


def _drop_signature(publisher: Publisher) -> None:
    publisher.drop_signature()


def _drop_layer(publisher: Publisher) -> None:
    del publisher.held.blobs[str(publisher.maker.image("1.0").layers[0].blob.digest)]


def _drop_image(publisher: Publisher) -> None:
    del publisher.held.manifests[str(publisher.digest)]


def _empty_registry(publisher: Publisher) -> None:
    publisher.empty_registry()


@pytest.mark.parametrize(
    "change",
    [_move_tag, _drop_attestation, _drop_statement, _drop_signature, _drop_layer, _drop_image, _empty_registry],
)
def test_what_is_not_in_the_registry_any_more_is_put_there(
    to_each: Publisher, change: Callable[[Publisher], None]
) -> None:
    publisher = to_each
    assert publisher.recognised()
    held = publisher.held
    before = {*held.manifests}, {*held.blobs}, dict(held.tags)
    change(publisher)
    assert not publisher.recognised()
    held = publisher.held
    wanted = {tag: digest for tag, digest in before[2].items() if not tag.startswith("sha256-")}
    assert {tag: held.tags[tag] for tag in wanted} == wanted == dict.fromkeys(wanted, str(publisher.digest))
    if change is not _empty_registry:  # Else the statements have other times.
        assert {*held.manifests} >= before[0] - {
            _statement for _statement in before[0] if _is_list(publisher, _statement)
        }
    assert {*held.blobs} >= {str(layer.blob.digest) for layer in publisher.maker.image("1.0").layers}
    as_before = change in {_drop_attestation, _drop_signature, _drop_layer, _drop_image}
    assert publisher.recognised() is as_before  # Signing is deterministic.
    assert publisher.recognised()


def _is_list(publisher: Publisher, digest: str) -> bool:
    """Whether a manifest is of a tag's statements or a list, which are written anew."""
    found = publisher.held.manifests.get(digest)
    return found is None or b"org.relbuild.move" in found[1] or b'"manifests"' in found[1]


def test_a_list_of_referrers_that_goes_on_where_it_ended_is_another_one(publisher: Publisher) -> None:
    manifests, image = publisher.held.manifests, str(publisher.digest)
    listed = sorted(digest for digest, (_, data) in manifests.items() if image.encode() in _subject(data))
    publisher.registry.page = len(listed)
    assert publisher.recognised()
    kind, data = manifests[listed[-1]]
    others = (data[:-1] + b',"annotations":{"other":"%d"}}' % number for number in range(10_000))
    foreign = next(one for one in others if digest_of(one) > listed[-1])
    manifests[digest_of(foreign)] = (kind, foreign)
    assert not publisher.recognised(), "the first page is the same, and a Link leads on"


def _subject(manifest: bytes) -> bytes:
    return json.dumps(json.loads(manifest).get("subject")).encode()


def test_what_wrote_is_not_remembered_and_is_done_once(to_each: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, publish = to_each, publish_run.publish
    calls, other = [], str(publisher.maker.image("0.9").digest)

    def then_roll_back(*given: Any) -> Any:
        done = publish(*given)
        calls.append([move.tag for move in done[0].moved])
        publisher.held.tags["latest"] = other
        return done

    _move_tag(publisher)
    monkeypatch.setattr(publish_run, "publish", then_roll_back)
    assert publisher.publish()[0] == 0
    assert calls == [["1"]]
    assert publisher.held.tags["latest"] == other
    monkeypatch.setattr(publish_run, "publish", publish)
    assert [move["tag"] for move in publisher.publish()[1]["moved"]] == ["latest"]
