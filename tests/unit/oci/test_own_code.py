"""The digest of relbuild's own code: recalled while its files are what they were, and else read."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import ANY

import pytest

import pipeline
from pipeline import provenance_inputs
from pipeline.digest import Digest, digest_file
from pipeline.model.provenance import Material
from pipeline.provenance_inputs import own_code, prepare_own_code
from pipeline.snapshots import own_files_digest, program_files
from pipeline.store import Store

NOW = 2e9
"""Seconds since the epoch, long after the files of relbuild were changed."""


@pytest.fixture
def _own_code_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance_inputs, "_own_code", [])


def _own_code_of_a_new_process(store: Store, monkeypatch: pytest.MonkeyPatch, now: float = NOW) -> tuple[Material, int]:
    """Return relbuild's own code as a material, and how many of its files were read."""
    read: list[Path] = []
    monkeypatch.setattr(provenance_inputs, "_own_code", [])
    monkeypatch.setattr(provenance_inputs, "digest_file", lambda path: read.append(path) or digest_file(path))
    prepare_own_code(store, now)
    return own_code(), len(read)


@pytest.mark.usefixtures("_own_code_unknown")
def test_own_code_is_recalled_while_its_files_have_the_same_stamps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = own_code()
    first, read = _own_code_of_a_new_process(store, monkeypatch)
    assert first == plain and read > 500
    assert _own_code_of_a_new_process(store, monkeypatch) == (plain, 0)


@pytest.mark.usefixtures("_own_code_unknown")
def test_own_code_that_changed_is_read_again(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "room" / "data.json"
    file.write_text("[1]")
    first = _own_code_of_a_new_process(store, monkeypatch)
    assert _own_code_of_a_new_process(store, monkeypatch) == (first[0], 0)
    times = file.stat()
    file.write_text("[2]")  # Of the same size, and with the same time.
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = _own_code_of_a_new_process(store, monkeypatch)
    assert second[0] != first[0] and second[1] == 2
    (folder / "room" / "more.py").write_text("")
    assert _own_code_of_a_new_process(store, monkeypatch)[0] not in (first[0], second[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of relbuild's own."""
    made = tmp_path / "pipeline"
    (made / "room").mkdir(parents=True)
    (made / "__init__.py").write_text("one = 1\n")
    monkeypatch.setattr(pipeline, "__file__", str(made / "__init__.py"))
    monkeypatch.setattr(program_files, "CODE", made)
    return made


@pytest.mark.usefixtures("_own_code_unknown")
def test_own_code_is_read_where_a_file_has_no_stamp(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = own_code()
    (folder / "room" / ".#module.py").symlink_to("user@host.123:456")  # As Emacs does.
    assert _own_code_of_a_new_process(store, monkeypatch) == (plain, 1)
    (folder / "room" / ".#module.py").unlink()
    assert _own_code_of_a_new_process(store, monkeypatch) == (plain, 1)
    assert _own_code_of_a_new_process(store, monkeypatch) == (plain, 0)


def test_a_file_that_goes_before_it_is_read_is_none_of_own_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance_inputs, "_own_code", [])
    plain = own_code()
    (folder / "room" / "gone.py").write_text("")

    def digest(path: Path) -> Digest:
        if path.name == "gone.py":
            path.unlink()
        return digest_file(path)

    monkeypatch.setattr(provenance_inputs, "digest_file", digest)
    monkeypatch.setattr(provenance_inputs, "_own_code", [])
    assert own_code() == plain


@pytest.mark.usefixtures("_own_code_unknown", "folder")
def test_own_code_of_which_a_file_goes_while_it_is_read_is_not_remembered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = own_code()

    def look() -> tuple[str, int]:
        if provenance_inputs._own_code:
            raise FileNotFoundError
        return "a", 0

    with monkeypatch.context() as patched:
        patched.setattr(provenance_inputs, "own_files_digest", look)
        assert _own_code_of_a_new_process(store, monkeypatch) == (plain, 1)
        assert _own_code_of_a_new_process(store, monkeypatch) == (plain, 1)


@pytest.mark.usefixtures("_own_code_unknown")
def test_own_code_that_has_just_changed_is_not_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could change again without another stamp."""
    _, newest = own_files_digest()
    _own_code_of_a_new_process(store, monkeypatch, newest / 1e9 + 1)
    assert _own_code_of_a_new_process(store, monkeypatch)[1] > 500


@pytest.mark.usefixtures("_own_code_unknown")
def test_own_code_that_changes_while_it_is_read_is_not_remembered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([("a", 0), ("b", 0)] * 2)
    monkeypatch.setattr(provenance_inputs, "own_files_digest", lambda: next(looks))
    _own_code_of_a_new_process(store, monkeypatch)
    assert _own_code_of_a_new_process(store, monkeypatch)[1] > 500


@pytest.mark.usefixtures("_own_code_unknown")
def test_a_damaged_or_foreign_digest_of_own_code_is_not_believed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = _own_code_of_a_new_process(store, monkeypatch)
    other = Store.open(tmp_path / "other")
    _own_code_of_a_new_process(other, monkeypatch)
    (path,), (foreign,) = ([*(one.root / "results").rglob("?" * 64)] for one in (store, other))
    sound = path.read_bytes()
    for data in (sound.replace(plain.sha256.hex.encode(), b"0" * 64), foreign.read_bytes()):
        path.write_bytes(data)
        assert _own_code_of_a_new_process(store, monkeypatch) == (plain, ANY)
        assert provenance_inputs._own_code == [plain]
