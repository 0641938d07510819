"""A publication is recognised if nothing that it reads has changed, and the registry answers as it did; no other is."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from pipeline.cli import publish_run, remembered_publications
from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.mirror.tag_memory import TagMemory
from pipeline.model.bill import BuildRecord
from pipeline.model.evidence import EVIDENCE_FILE
from pipeline.oci import write_layout
from pipeline.reports import report_documents, report_folder, write_report
from pipeline.transfer import repeated_questions
from tests.support.bills import AWKWARD
from tests.support.published_images import ImagePublisher
from tests.support.registry_fake import FakeRegistry, Fault, Request, digest_of, fake_registry
from tests.support.signing_examples import PRIVATE, PROVENANCE_VALUE
from tests.support.tested_images import simple_evidence

REFUSED, DENIED = 7, 8
"""Exit codes."""


@dataclass
class Publisher:
    """A built image in a folder, which `relbuild publish` publishes to a registry."""

    folder: Path
    registry: FakeRegistry
    ordinary: list[object] = field(default_factory=list)
    """One for each publication that was not recognised."""
    more: tuple[str, ...] = ()
    maker: ImagePublisher = field(init=False)

    def __post_init__(self) -> None:
        self.maker = ImagePublisher.at(self.folder)
        image, store = self.maker.image("1.0"), self.maker.store
        write_layout(image, store=store, target=self.layout)
        evidence = simple_evidence(image)
        record = BuildRecord(image.digest, PROVENANCE_VALUE, evidence.checks)
        documents = report_documents(replace(AWKWARD, digest=image.digest, version="1.0"), record, store=store)
        write_report(self.report, {}, documents, report=None, evidence=evidence, image=image, store=store)
        self.key.touch(0o600)
        self.key.write_bytes(PRIVATE)
        self.digest = image.digest

    @property
    def layout(self) -> Path:
        return self.folder / "small"

    @property
    def report(self) -> Path:
        return report_folder(self.layout)

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def held(self) -> Any:
        return self.registry.held("ns/small")

    def publish(self, *more: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, answer, and the lines for people."""
        self.registry.requests.clear()
        import_commands("publish")
        to = f"registry+http://{self.registry.host}/ns"
        words = ["publish", self.layout, "--to", to, "--key", self.key, "--store", self.maker.store.root]
        command = [*map(str, words), "--progress", "none", "--json", *self.more, *more]
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PYTEST_CURRENT_TEST")  # Another one in a test than in its fixtures.
            done = CliRunner().invoke(app, command)
        published = json.loads(done.stdout).get("published") if done.stdout else None
        return done.exit_code, published[0] if published else {}, done.stderr

    def asked(self) -> set[str]:
        """The paths of the requests; where there is no referrers API, whichever thread is first finds that out."""
        paths = [path for _, path, _ in self.registry.requests]
        return {
            path if self.registry.lists_referrers else re.sub("/referrers/.*", "/referrers/", path) for path in paths
        }

    def recognised(self, *more: str) -> bool:
        """Publish; return whether it was recognised."""
        before = len(self.ordinary)
        status, _, said = self.publish(*more)
        assert status == 0, said
        return len(self.ordinary) == before


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: None) -> Iterator[Publisher]:
    """It has published twice, to a registry with the referrers API: the second publication changed nothing."""
    with _published_twice(tmp_path, monkeypatch, referrers=True) as made:
        yield made


@pytest.fixture(params=[True, False], ids=["with the referrers API", "without it"])
def to_each(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, environment: None
) -> Iterator[Publisher]:
    """It has published twice, to either kind of registry."""
    with _published_twice(tmp_path, monkeypatch, referrers=request.param) as made:
        yield made


@contextlib.contextmanager
def _published_twice(folder: Path, monkeypatch: pytest.MonkeyPatch, *, referrers: bool) -> Iterator[Publisher]:
    with fake_registry(referrers=referrers) as registry:
        made = Publisher(folder / "all", registry)
        publish = publish_run.run_publish

        def counted(*given: Any, **options: Any) -> Any:
            made.ordinary.append(given)
            return publish(*given, **options)

        monkeypatch.setattr(publish_run, "run_publish", counted)
        status, answer, said = made.publish()
        assert (status, len(made.ordinary)) == (0, 1) and answer["moved"], said
        assert not made.recognised()
        yield made


def test_an_unchanged_publication_is_recognised_and_says_what_an_ordinary_one_says(to_each: Publisher) -> None:
    publisher = to_each
    status, answer, said = publisher.publish()
    assert (status, len(publisher.ordinary)) == (0, 2)
    assert {method for method, _, _ in publisher.registry.requests} <= {"HEAD", "GET"}
    assert sum(answer.pop("requests").values()) == len(publisher.registry.requests)
    again, ordinary, told = publisher.publish("--read-back")
    assert (again, len(publisher.ordinary)) == (0, 3)
    ordinary.pop("requests")
    assert (answer, said) == (ordinary, told)
    assert publisher.recognised()


def test_it_asks_all_that_an_ordinary_one_asks(to_each: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = to_each
    assert publisher.recognised()
    asked = publisher.asked()
    monkeypatch.setattr(remembered_publications, "LIFETIME", 0)
    assert not publisher.recognised()
    assert publisher.asked() <= asked


def _move_tag(publisher: Publisher) -> None:
    """Another image, which somebody else pushed."""
    other, held = publisher.maker.image("0.9"), publisher.held
    held.manifests[str(other.digest)] = (other.manifest_descriptor.media_type, other.manifest_bytes)
    held.blobs[str(other.config_descriptor.digest)] = other.config_bytes
    held.tags["1"] = str(other.digest)


def _others_index(publisher: Publisher) -> None:
    """Another signature on the image, of somebody else."""
    tag = next(tag for tag in publisher.held.tags if tag.endswith(".sig"))
    publisher.held.tags[tag] = next(iter(publisher.held.manifests))


def _of(publisher: Publisher, text: bytes) -> str:
    return next(digest for digest, (_, data) in publisher.held.manifests.items() if text in data)


def _drop_attestation(publisher: Publisher) -> None:
    del publisher.held.manifests[_of(publisher, b"spdx")]


def _drop_statement(publisher: Publisher) -> None:
    del publisher.held.manifests[_of(publisher, b'"org.relbuild.move.number"')]


def _drop_signature(publisher: Publisher) -> None:
    del publisher.held.tags[next(tag for tag in publisher.held.tags if tag.endswith(".sig"))]


def _drop_layer(publisher: Publisher) -> None:
    del publisher.held.blobs[str(publisher.maker.image("1.0").layers[0].blob.digest)]


def _drop_image(publisher: Publisher) -> None:
    del publisher.held.manifests[str(publisher.digest)]


def _empty_registry(publisher: Publisher) -> None:
    publisher.registry.repositories.clear()


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


def _rotate_key(publisher: Publisher) -> None:
    other = ec.derive_private_key(0xABCD, ec.SECP256R1())
    publisher.key.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _see_higher_number(publisher: Publisher) -> None:
    url = f"registry+http://{publisher.registry.host}/ns/small"
    memory = TagMemory(publisher.maker.store)
    memory.see(url, "latest", memory.seen(url, "latest") + 7)


def _alter_record(publisher: Publisher) -> None:
    """What is remembered says that another tag was looked at."""
    [path] = [path for path in (publisher.maker.store.root / "results").rglob("*") if _remembers(path)]
    path.write_bytes(path.read_bytes().replace(b"/manifests/latest", b"/manifests/1.0.00"))


def _remembers(path: Path) -> bool:
    return path.is_file() and b'"settled_until"' in path.read_bytes()


@pytest.mark.parametrize("change", [_rotate_key, _see_higher_number, _alter_record])
def test_what_was_changed_here_is_published_anew(publisher: Publisher, change: Callable[[Publisher], None]) -> None:
    assert publisher.recognised()
    before = len(publisher.held.manifests)
    change(publisher)
    assert not publisher.recognised()
    assert len(publisher.held.manifests) > before or change is _alter_record
    assert publisher.recognised() is (change is _alter_record)
    assert publisher.recognised()


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


def test_a_rule_that_was_tightened_refuses(publisher: Publisher) -> None:
    rules = publisher.folder / "rules.yaml"
    rules.write_text("gate: [{size: 100MiB}]\n")
    assert not publisher.recognised("--rules", str(rules))
    assert publisher.recognised("--rules", str(rules))
    rules.write_text("gate: [{size: 100MiB, labels: [no-such-label]}]\n")
    status, _, said = publisher.publish("--rules", str(rules))
    assert status == REFUSED and "gate-labels" in said


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


def test_rules_that_were_tightened_while_it_published_refuse(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules, read = publisher.folder / "rules.yaml", publish_run.rules_for
    rules.write_text("gate: [{size: 100MiB}]\n")

    def then_tighten(*given: Any) -> Any:
        found = read(*given)
        rules.write_text("gate: [{size: 100MiB, labels: [no-such-label]}]\n")
        return found

    monkeypatch.setattr(publish_run, "rules_for", then_tighten)
    assert not publisher.recognised("--rules", str(rules))
    monkeypatch.setattr(publish_run, "rules_for", read)
    status, _, said = publisher.publish("--rules", str(rules))
    assert status == REFUSED and "gate-labels" in said


def test_edited_evidence_is_refused(publisher: Publisher) -> None:
    assert publisher.recognised()
    proof = publisher.report / EVIDENCE_FILE
    proof.write_bytes(proof.read_bytes().replace(b'"runc', b'"runs', 1) + b" ")
    status, _, said = publisher.publish()
    assert status == REFUSED and "gate-report-edited" in said


def test_an_image_without_its_report_is_refused(publisher: Publisher) -> None:
    assert publisher.recognised()
    shutil.rmtree(publisher.report)
    assert publisher.publish()[0] not in {0, 1}


def test_statements_are_renewed_when_they_are_due(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = publisher.folder / "rules.yaml"
    rules.write_text("validity: 8h\n")
    _empty_registry(publisher)
    for _ in range(2):
        assert not publisher.recognised("--rules", str(rules))
    assert publisher.recognised("--rules", str(rules))
    before, now = len(publisher.held.manifests), time.time
    monkeypatch.setattr(time, "time", lambda: now() + 1.9 * 3600)
    assert publisher.recognised("--rules", str(rules))
    monkeypatch.setattr(time, "time", lambda: now() + 2.1 * 3600)
    assert not publisher.recognised("--rules", str(rules))
    assert len(publisher.held.manifests) > before


@pytest.mark.parametrize("hours", [-1, 25])
def test_another_day_or_a_clock_that_was_set_back_is_no_repetition(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    assert publisher.recognised()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + hours * 3600)
    assert not publisher.recognised()


def test_what_warns_is_no_repetition(publisher: Publisher) -> None:
    assert publisher.recognised()
    publisher.key.chmod(0o644)
    for _ in range(2):
        assert "readable by others" in publisher.publish()[2]


def test_other_options_and_another_program_are_no_repetition(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publisher.recognised()
    assert not publisher.recognised("--tag", "latest")
    assert publisher.recognised("--tag", "latest")
    assert not publisher.recognised("--read-back")
    monkeypatch.setenv("SOMETHING", "else")
    assert not publisher.recognised()
    monkeypatch.delenv("SOMETHING")
    assert publisher.recognised()
    monkeypatch.setattr(remembered_publications, "program_digest", lambda *_: ("another", 0))
    assert not publisher.recognised()


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
    _drop_signature(publisher)
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
    monkeypatch.setattr("pipeline.cli.key_files.password", lambda *_: lambda: b"secret")
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
