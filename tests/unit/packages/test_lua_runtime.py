"""The copy of the host's rpm that runs `-p <lua>` scriptlets, found again by the stamps of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.packages import lua
from pipeline.packages.lua import lua_runtime
from pipeline.store import Store


class Host:
    """A program with one library, for `ldd` to tell of; `asked` counts how often it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rpm, self.library, self.cache = folder / "rpm", folder / "librpm.so", folder / "ld.so.cache"
        self.rpm.write_bytes(b"rpm")
        self.library.write_bytes(b"library")
        self.asked = 0
        (folder / "rpmrc").touch()
        (folder / "macros").touch()
        monkeypatch.setattr(lua, "find_program", lambda name: self.rpm)
        monkeypatch.setattr(lua, "_closure", self._closure)
        monkeypatch.setattr(lua, "_CONFIGURATION", folder)
        monkeypatch.setattr(lua, "_LIBRARY_CACHE", self.cache)

    def _closure(self, program: Path) -> dict[str, Path]:
        self.asked += 1
        return {self.library.name: self.library}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (tmp_path / "host").mkdir()
    return Host(tmp_path / "host", monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_libraries_are_looked_up_once_while_no_file_changes(host: Host, store: Store) -> None:
    first = lua_runtime(store)
    assert lua_runtime(store) == first and host.asked == 1
    assert (first / "lib/librpm.so").read_bytes() == b"library"


@pytest.mark.parametrize("changed", ["rpm", "library", "cache"])
def test_they_are_looked_up_again_after_a_change(host: Host, store: Store, changed: str) -> None:
    first = lua_runtime(store)
    getattr(host, changed).write_bytes(b"another")
    second = lua_runtime(store)
    assert host.asked == 2
    assert (second == first) == (changed == "cache"), "of equal content is the same copy"


def test_a_record_that_this_store_did_not_seal_does_not_count(host: Host, store: Store) -> None:
    lua_runtime(store)
    for record in (store.root / "results").glob("*/*"):
        record.write_bytes(record.read_bytes().replace(b"librpm.so", b"forged.so"))
    lua_runtime(store)
    assert host.asked == 2


def test_a_copy_that_was_changed_or_removed_is_made_again(host: Host, store: Store) -> None:
    first = lua_runtime(store)
    (first / "lib/librpm.so").write_bytes(b"forged")
    assert (lua_runtime(store) / "lib/librpm.so").read_bytes() == b"library"
    (first.parent / "seal").unlink()
    assert (lua_runtime(store) / "lib/librpm.so").read_bytes() == b"library"
