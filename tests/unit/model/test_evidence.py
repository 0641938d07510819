"""Evidence is one text, sealed by the store that tested, and says what is in the image."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import canonical_json
from pipeline.errors import VerificationError
from pipeline.layers import read_contents
from pipeline.model import evidence as evidence_module
from pipeline.model.evidence import PrivilegedFile, evidence_json, read_evidence
from pipeline.store import Store
from tests.support.tested_images import (
    evidence,
    image,
    loosely_tested,
    with_instance,
)


class TestForm:
    def test_it_reads_back_as_the_same_from_the_same_bytes(self) -> None:
        whole = evidence(image())
        data = evidence_json(whole)
        assert read_evidence(data) == whole
        assert evidence_json(read_evidence(data)) == data == canonical_json(json.loads(data))

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda data: data + b"\n",
            lambda data: data.replace(b'"full":true', b'"full":false,"full":true'),
            lambda data: data.replace(b'"full":true', b'"full":1'),
            lambda data: data.replace(b'"full":true', b'"full":true,"more":null'),
            lambda data: data.replace(b'"full":true,', b""),
            lambda data: data.replace(b'"schema":2', b'"schema":3'),
            lambda data: data.replace(b'"schema":2', b'"schema":1'),
            lambda data: data.replace(b'"schema":2', b'"schema":"2"'),
            lambda data: data.replace(b'"schema":2', b'"schema":true'),
            lambda data: data.replace(b'"enforced":true,"name":"memory"', b'"enforced":false,"name":"memory"', 1),
            lambda data: data.replace(b'"enforced":true,"name":"pids"', b'"enforced":false,"name":"pids"', 1),
            lambda data: json.dumps(json.loads(data), indent=1).encode(),
            lambda data: b"null",
            lambda data: b"\xff",
            lambda data: b"[" * 100_000,
            lambda data: b'{"schema":2,"image":' + b"9" * 5000 + b"}",
        ],
    )
    def test_any_other_text_is_refused(self, spoil: object) -> None:
        assert callable(spoil)
        with pytest.raises(VerificationError, match="evidence"):
            read_evidence(spoil(evidence_json(evidence(image()))))

    def test_evidence_of_the_first_schema_is_read_and_says_what_was_enforced(self) -> None:
        whole = loosely_tested(evidence(image()))
        old = evidence_json(whole, 1)
        assert b'"limits":[' in old, "the readings, and nothing else"
        assert b"schema" in old
        assert json.loads(old).keys() == json.loads(evidence_json(whole)).keys() - {"limits"}
        assert read_evidence(old) == whole
        assert read_evidence(old).limits == whole.limits

    def test_it_says_of_each_limit_whether_every_instance_was_held_to_it_and_why_not(self) -> None:
        said = json.loads(evidence_json(loosely_tested(evidence(image()))))["limits"]
        assert said == [
            {"name": "memory", "asked": 64 << 20, "enforced": False, "reason": "not handed over"},
            {"name": "pids", "asked": 50, "enforced": False, "reason": "asked 50, read 99"},
        ]
        assert [limit.enforced for limit in evidence(image()).limits] == [True, True]

    def test_a_limit_that_was_asked_for_and_not_read_back_is_not_enforced(self) -> None:
        found = with_instance(evidence(image()), 0, limits=())
        assert {(one.name, one.enforced, one.reason) for one in found.limits} == {
            ("memory", False, "it was not read back"),
            ("pids", False, "it was not read back"),
        }

    def test_it_is_bounded_both_ways(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = evidence_json(evidence(image()))
        monkeypatch.setattr(evidence_module, "EVIDENCE_LIMIT", len(data) - 1)
        with pytest.raises(VerificationError, match="more than"):
            evidence_json(evidence(image()))
        with pytest.raises(VerificationError, match="exceeds"):
            read_evidence(data)


class TestSeal:
    def test_a_store_knows_its_own_seal_also_when_it_is_opened_again(self, tmp_path: Path) -> None:
        seal = Store.open(tmp_path).seal(b"data")
        store = Store.open(tmp_path)
        assert store.sealed(b"data", seal)
        assert not store.sealed(b"other", seal)
        assert not store.sealed(b"data", seal.upper()) and not store.sealed(b"data", "")

    def test_the_key_is_random_and_its_owners_alone(self, tmp_path: Path) -> None:
        stores = [Store.open(tmp_path / name) for name in "ab"]
        assert stores[0].seal(b"data") != stores[1].seal(b"data")
        status = (tmp_path / "a" / "key").stat()
        assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_size == 32
        assert not list((tmp_path / "a" / "tmp").iterdir())

    def test_of_many_that_make_it_at_once_all_use_the_same(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        seals: list[str] = []
        everyone = threading.Barrier(8)

        def seal() -> None:
            everyone.wait()
            seals.append(store.seal(b"data"))

        threads = [threading.Thread(target=seal) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seals) == 8 and len(set(seals)) == 1

    @pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b""), lambda path: path.chmod(0o644)])
    def test_a_key_that_somebody_else_made_is_not_used(self, tmp_path: Path, spoil: object) -> None:
        store = Store.open(tmp_path)
        store.seal(b"data")
        assert callable(spoil)
        spoil(tmp_path / "key")
        with pytest.raises(VerificationError) as caught:
            Store.open(tmp_path).seal(b"data")
        assert caught.value.code == "store-key" and caught.value.problems[0].hint


class TestContents:
    def test_setuid_programs_that_the_image_shows(self, tmp_path: Path) -> None:
        layers = [tmp_path / name for name in ("base", "product", "state")]
        files = {
            "base/usr/bin/kept": 0o4755,
            "base/usr/bin/plain": 0o755,
            "base/usr/bin/replaced": 0o4755,
            "base/usr/bin/lost": 0o2755,
            "base/opt/a/beneath": 0o4755,
            "base/srv/b/c": 0o4755,
            "product/usr/bin/replaced": 0o755,
            "product/usr/sbin/group": 0o2711,
            "product/srv": 0o644,
            "state/usr/bin/other": 0o755,
        }
        for name, mode in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            path.chmod(mode)
        (tmp_path / "base/usr/setgid").mkdir(mode=0o2755)
        (tmp_path / "base/usr/link").symlink_to("bin/kept")
        if os.geteuid() == 0:
            os.mknod(tmp_path / "state/usr/bin/lost", stat.S_IFCHR, 0)
        else:
            (tmp_path / "state/usr/bin/lost").write_bytes(b"")
        (tmp_path / "state/opt").write_bytes(b"")
        contents = read_contents(image("3.1"), layers)
        assert contents.privileged == (
            PrivilegedFile("/usr/bin/kept", 0o4755),
            PrivilegedFile("/usr/sbin/group", 0o2711),
        )
        assert (contents.name, contents.version, contents.architecture, contents.packages) == (
            "tiny",
            "3.1",
            "amd64",
            (),
        )


def test_a_report_that_fails_can_be_written_down_too() -> None:
    found = evidence(image())
    failed = replace(found, report=replace(found.report, failure="it did not"))
    assert read_evidence(evidence_json(failed)) == failed and not failed.report.passed
