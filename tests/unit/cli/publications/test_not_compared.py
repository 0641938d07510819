"""What cannot be compared is published in the ordinary way, which is told with the reason."""

from __future__ import annotations

import json
import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from pipeline.cli import publish_run
from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.transfer import repeated_questions
from tests.support.published_twice import Publisher
from tests.support.registry_fake import Fault, Request
from tests.support.repeated_publisher import DENIED


def test_credentials_are_those_of_the_ordinary_way(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = {"Basic dXNlcjpzZWNyZXQ="}

    def guard(request: Request) -> bool:
        if request.headers["Authorization"] in accepted:
            return True
        request.refuse(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="here"')
        return False

    publisher.registry.guard = guard
    status, _, said = publisher.publish()
    assert status == DENIED and "registry-denied" in said
    auth = publisher.folder / "auth.json"
    auth.write_text(json.dumps({"auths": {publisher.registry.host: {"auth": "dXNlcjpzZWNyZXQ="}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    assert not publisher.recognised()
    assert publisher.recognised()
    assert publisher.registry.count("HEAD", "/manifests/latest") <= 2
    accepted.clear()
    assert publisher.publish()[0] == DENIED


def _comparison(publisher: Publisher) -> str:
    """What the comparison of a publication that is made in the ordinary way told."""
    before = len(publisher.ordinary)
    status, _, said = publisher.publish("--progress", "plain")
    assert status == 0 and len(publisher.ordinary) == before + 1, said
    return next(line for line in said.splitlines() if "compare" in line)


def test_a_registry_that_answers_late_is_asked_in_the_ordinary_way(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publisher.recognised()
    monkeypatch.setattr(repeated_questions, "ANSWER_SECONDS", 0.0)
    said = _comparison(publisher)
    assert "not compared: the registry did not answer all questions within 0 s; it is published in the" in said


@pytest.mark.parametrize("status", [307, 403, 429, 503])
def test_an_answer_that_tells_nothing_of_what_is_there_is_not_called_a_change(
    status: int, publisher: Publisher
) -> None:
    assert publisher.recognised()
    again = f"http://{publisher.registry.host}/v2/ns/small/manifests/latest"
    fault = Fault("HEAD", "/manifests/latest", lambda request: request.answer(status, Location=again))
    publisher.registry.faults.append(fault)
    said = _comparison(publisher)
    assert f"not compared: the registry answered with status {status} " in said and "changed" not in said


def test_what_differs_is_called_a_change(publisher: Publisher) -> None:
    assert publisher.recognised()
    publisher.drop_signature()
    assert "changed" in _comparison(publisher)


def test_what_cannot_be_asked_again_is_not_remembered(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert not publisher.recognised()
    assert publisher.recognised()
    monkeypatch.setenv("no_proxy", "example.org")
    names: list[object] = []
    monkeypatch.setattr(publish_run, "run_publish", lambda request, name, *_, **__: names.append(name) or ())
    assert publisher.publish()[0] == 0
    assert names == [None]


def test_a_key_whose_password_a_person_types_is_not_remembered(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.derive_private_key(0x7E57, ec.SECP256R1())
    publisher.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    monkeypatch.setattr("pipeline.cli.key_files.password", lambda *_, **__: lambda: b"secret")
    assert not publisher.recognised()
    assert not publisher.recognised()
    monkeypatch.setenv("RELBUILD_KEY_PASSWORD", "secret")
    assert not publisher.recognised()
    assert publisher.recognised()


def test_to_a_directory_the_ordinary_way_is_taken(publisher: Publisher) -> None:
    for _ in range(2):
        before = len(publisher.ordinary)
        import_commands("publish")
        words = ["publish", publisher.layout, "--to", f"dir:{publisher.folder}/mirror", "--key", publisher.key]
        words += ["--store", publisher.maker.store.root, "--progress", "none"]
        assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
        assert len(publisher.ordinary) == before + 1


def test_a_tag_that_names_another_digest_is_refused_before_anything_is_sent(publisher: Publisher) -> None:
    own = next(tag for tag in publisher.held.tags if re.search(r"-\d{8}-[0-9a-f]{12}$", tag))
    for tag in ("2-20261101-0123456789ab", "edge-20261101-0123456789ab"):
        status, _, said = publisher.publish("--tag", "stable", "--tag", tag)
        assert status == 7 and f"tag-immutable] {publisher.to}/" in said and f"'{tag}'" in said
        assert "→ choose a tag that may move" in said
        assert publisher.registry.count("PUT") == publisher.registry.count("POST") == 0
    assert publisher.publish("--tag", own)[0] == 0  # Its own is no other's.


def test_the_address_of_an_image_is_refused_before_anything_is_asked(publisher: Publisher) -> None:
    to = publisher.to
    publisher.to = f"{to}/product:latest"
    status, _, said = publisher.publish()
    assert status == 2 and f"→ write {to}, without a repository's name, tag and digest" in said
    assert not publisher.registry.requests
