"""`ci/faults`: which states count as the same, and how the rows of several runs add up."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.store import Store
from pipeline.store.authenticated_values import Sealer
from pipeline.store.seal_key import KEY_SIZE

FAULTS = Path(__file__).parents[3] / "ci" / "faults.d"


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"faults_{name}", FAULTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _own_key(store: Path) -> bytes:
    store.mkdir(parents=True, mode=0o700)
    (store / "key").write_bytes(b"k" * KEY_SIZE)
    (store / "key").chmod(0o600)
    return b"k" * KEY_SIZE


states, results = _module("states"), _module("results")


def _folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def test_the_same_files_with_other_random_names_of_drafts_are_the_same_state(tmp_path: Path) -> None:
    one = _folder(tmp_path / "one", {"recipes/a.lock": "a", "store/tmp/state-gmvqx_nt/rpmdb": "half"})
    two = _folder(tmp_path / "two", {"recipes/a.lock": "a", "store/tmp/state-0k2j3h4g/rpmdb": "half"})
    known = states.Known()
    known.add(states.state_of(one), set(), set())
    assert states.state_of(two) in known


@pytest.mark.parametrize(
    "change",
    [
        lambda at: (at / "recipes" / "a.lock").write_text("b"),
        lambda at: (at / "recipes" / "a.lock").chmod(0o600),
        lambda at: (at / "recipes" / "a.lock").unlink(),
        lambda at: (at / "recipes" / "b.lock").hardlink_to(at / "recipes" / "a.lock"),
        lambda at: (at / "store" / "tmp" / "file-aaaaaaaa").write_text(""),
        lambda at: (at / "recipes" / "a.link").symlink_to("a.lock"),
    ],
    ids=["bytes", "mode", "gone", "another name", "a draft more", "a link more"],
)
def test_another_file_is_another_state(tmp_path: Path, change: Any) -> None:
    files = {"recipes/a.lock": "a", "store/tmp/state-gmvqx_nt/rpmdb": "half"}
    known = states.Known()
    known.add(states.state_of(_folder(tmp_path / "one", files)), set(), set())
    two = _folder(tmp_path / "two", files)
    change(two)
    assert states.state_of(two) not in known


def test_the_bytes_of_a_draft_count_if_the_next_run_opened_it_or_moved_it(tmp_path: Path) -> None:
    draft = "store/tmp/state-gmvqx_nt/rpmdb"
    one = states.state_of(_folder(tmp_path / "one", {draft: "half"}))
    two = states.state_of(_folder(tmp_path / "two", {draft: "more than half"}))
    for opened, moved, same in (
        (set(), set(), True),
        ({draft}, set(), False),
        (set(), {"store/tmp/state-gmvqx_nt"}, False),
    ):
        known = states.Known()
        known.add(one, opened, moved)
        assert (two in known) is same, (opened, moved)


def test_a_record_counts_by_which_file_it_is_true_of(tmp_path: Path) -> None:
    """A store remembers of a blob its inode and times, which no two runs have the same, under a seal."""
    found = []
    for name in ("one", "two", "stale"):
        _own_key(tmp_path / name / "store")
        store = Store.open(tmp_path / name / "store")
        digest = store.put(b"bytes")
        status = store.blob(digest).stat()
        stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        if name == "stale":
            stamp[1] += 1
        store.remember(Digest.of(b"identity"), stamp)
        found.append(states.state_of(tmp_path / name).shape)
    assert found[0] == found[1] != found[2]


def test_what_a_seal_does_not_hold_for_counts_by_its_bytes(tmp_path: Path) -> None:
    shapes = []
    for name, spoil in (("one", b""), ("two", b""), ("three", b" ")):
        at = tmp_path / name
        key = _own_key(at / "store")
        sealed = Sealer.of(key, "result").seal(str(Digest.of(b"it")), json.dumps(["a", 1]).encode())
        place = at / "store" / "results" / Digest.of(b"it").hex
        place.parent.mkdir()
        place.write_bytes(sealed + spoil)
        shapes.append(states.state_of(at).shape)
    assert shapes[0] == shapes[1] != shapes[2]


def test_rows_of_several_runs_add_up(tmp_path: Path) -> None:
    file = tmp_path / "faults.tsv"
    first = results.Row("lock", "kill", "once", "", "abc", calls=9)
    for number in (1, 2, 3):
        first.add(number, -9, reached=True, new=number < 3, lost=False)
    results.write(file, [first])
    rows = results.read(file)
    assert rows == {first.key: first}
    for number in (5, 4):
        rows[first.key].add(number, 0, reached=number == 4, new=True, lost=True)
    results.write(file, rows.values())
    line = dict(zip(results.HEADER, file.read_text().splitlines()[1].split("\t"), strict=True))
    assert (line["injected"], line["numbers"], line["exit statuses"]) == ("5", "1-5", "-9:3 0:2")
    assert (line["not reached"], line["states"], line["losses"]) == ("1", "4", "2")
