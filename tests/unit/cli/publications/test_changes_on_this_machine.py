"""A publication is recognised if nothing that it reads on this machine has changed, and in time; no other is."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.cli import publish_run, remembered_publications
from pipeline.mirror.known_blobs import KnownInRun
from pipeline.mirror.tag_memory import TagMemory
from pipeline.model.evidence import EVIDENCE_FILE
from pipeline.oci import load_signing_key
from tests.support.published_twice import PublishedTwice, Publisher
from tests.support.repeated_publisher import REFUSED


def _rotate_key(publisher: Publisher) -> None:
    other = ec.derive_private_key(0xABCD, ec.SECP256R1())
    publisher.key.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _see_higher_number(publisher: Publisher) -> None:
    url = f"registry+http://{publisher.registry.host}/ns/small"
    memory = TagMemory(publisher.maker.store)
    key = load_signing_key(publisher.key.read_bytes()).public.fingerprint
    memory.see(url, "latest", key, memory.seen(url, "latest", key) + 7)


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


@pytest.mark.parametrize("later", [60.0, -3600.0])
def test_a_blob_that_was_found_rotten_since_is_read_by_an_ordinary_publication(
    publisher: Publisher, later: float
) -> None:
    """Also where the clock was set back before it was found."""
    assert publisher.recognised()
    layer = publisher.maker.image("1.0").layers[0].blob.digest
    mirror = f"registry+http://{publisher.registry.host}/ns"
    KnownInRun(mirror, publisher.maker.store, lambda: time.time() + later).note_damage(layer)
    assert not publisher.recognised()
    assert publisher.registry.count("GET", f"/blobs/{layer}") == 1  # of this publication's requests
    assert not publisher.recognised()  # what reads blobs is not remembered
    assert publisher.registry.count("GET", f"/blobs/{layer}") == 0
    assert publisher.recognised()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"x" * path.stat().st_size)])
def test_a_layer_that_is_damaged_in_the_layout_alone_is_told_each_time(
    publisher: Publisher, spoil: Callable[[Path], object]
) -> None:
    """The store's is published: bytes that were tested."""
    digest = publisher.maker.image("1.0").layers[0].blob.digest
    (path,) = _layer_files(publisher, digest.hex)
    spoil(path)
    before = dict(publisher.held.blobs)
    for _ in range(2):
        status, _, said = publisher.publish()
        assert status == 0 and f"the layer {digest} is missing or damaged there" in said
    assert publisher.held.blobs == before


def _layer_files(publisher: Publisher, name: str) -> list[Path]:
    """Return the files of a blob in layouts, and not in the store."""
    store = publisher.maker.store.root
    return [path for path in publisher.folder.rglob(name) if not path.is_relative_to(store)]


def test_a_rule_that_was_tightened_refuses(publisher: Publisher) -> None:
    rules = publisher.folder / "rules.yaml"
    rules.write_text("gate: [{size: 100MiB}]\n")
    assert not publisher.recognised("--rules", str(rules))
    assert publisher.recognised("--rules", str(rules))
    rules.write_text("gate: [{size: 100MiB, labels: [no-such-label]}]\n")
    status, _, said = publisher.publish("--rules", str(rules))
    assert status == REFUSED and "gate-labels" in said


def test_rules_that_were_tightened_while_it_published_refuse(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules, read = publisher.folder / "rules.yaml", publish_run.rules_for
    rules.write_text("gate: [{size: 100MiB}]\n")

    def then_tighten(*given: Any, **options: Any) -> Any:
        found = read(*given, **options)
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
    publisher.empty_registry()
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


def test_a_library_or_a_file_of_relbuild_that_was_changed_is_another_program(
    publisher: Publisher, tmp_path: Path
) -> None:
    assert publisher.program is not None and publisher.recognised()
    publisher.program = shutil.copytree(publisher.program, tmp_path / "program")
    assert not publisher.recognised()
    assert publisher.recognised()
    for path in (publisher.program / "library.so", publisher.program / "code" / "module.py"):
        path.write_bytes(path.read_bytes() + b"#")
        assert not publisher.recognised()
        assert publisher.recognised()


def test_what_other_tests_leave_in_this_process_is_no_change(
    published_twice: Callable[[bool], PublishedTwice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is called in it leaves a variable behind; where tests are dealt out, in any order."""
    before = published_twice(True)
    monkeypatch.setenv("LEFT_BY_ANOTHER_TEST", "1")
    monkeypatch.setattr(sys, "path", ["/left/by/another/test", *sys.path])
    with before.publisher() as publisher:
        assert publisher.recognised()


def test_what_a_program_did_that_was_changed_since_it_started_is_not_remembered(
    publisher: Publisher,
) -> None:
    publisher.age = 100 * 365 * 86400.0
    for _ in range(2):
        assert not publisher.recognised("--tag", "latest")
    publisher.age = 0.0
    assert not publisher.recognised("--tag", "latest")
    assert publisher.recognised("--tag", "latest")
