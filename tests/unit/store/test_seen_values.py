"""Records of what was seen once: `gc` leaves them, whatever their age, and those of earlier versions."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.backends.directory.mirror_marker import remembered_host, require_remembered_host
from pipeline.mirror.damage_memory import DamageMemory
from pipeline.mirror.tag_memory import TagMemory
from pipeline.model.platform import PackageRepository, Platform
from pipeline.repos import open_repositories
from pipeline.store import Store, check_store, collect_garbage, recall_seen, remember_seen, seen_record
from tests.support.rpmmd import Rpm, write_repository

NAME = Digest.of(b"name")
METALINK = (
    '<metalink><files><file name="repomd.xml"><verification><hash type="sha256">{}</hash></verification>'
    "<resources><url>{}/repodata/repomd.xml</url></resources></file></files></metalink>"
)
AT_ONCE = 10.0
"""Seconds from now before which everything was used: `--older-than 0`, and a clock that is behind."""


def collect_all(store: Store) -> None:
    """As `store gc --older-than 0`, where nothing was used for years."""
    for path in (store.root / "results").rglob("*"):
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    collect_garbage(store, time.time() + AT_ONCE)


def as_earlier_versions(store: Store) -> None:
    """Put every record where earlier versions kept it, beside the results."""
    for path in (store.root / "results" / "seen").iterdir():
        target = store.result(Digest(path.name))
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    assert not list((store.root / "results" / "seen").iterdir())


def as_now(store: Store) -> None:
    assert list((store.root / "results" / "seen").iterdir())


def show_repository(store: Store, folder: Path, revision: str) -> None:
    """Open a repository of this revision, which its metalink proves."""
    url = write_repository(folder / "r", [Rpm("a")], revision=revision)
    repomd = (folder / "r" / "repodata" / "repomd.xml").read_bytes()
    metalink = folder / "metalink"
    metalink.write_text(METALINK.format(hashlib.sha256(repomd).hexdigest(), url))
    platform = Platform("p", (PackageRepository("r", metalink=metalink.as_uri()),))
    open_repositories(platform, "x86_64", variables={}, store=store)


places = pytest.mark.parametrize("place", [as_now, as_earlier_versions])
Place = Callable[[Store], None]


@places
def test_a_rollback_is_refused_after_everything_was_collected(store: Store, tmp_path: Path, place: Place) -> None:
    show_repository(store, tmp_path, "2000")
    place(store)
    collect_all(store)
    with pytest.raises(VerificationError) as caught:
        show_repository(store, tmp_path, "1000")
    assert caught.value.code == "metadata-rollback"
    (hint,) = [one.hint for one in caught.value.problems]
    (record,) = (store.root / "results" / "seen").iterdir()
    assert hint.endswith(f"remove results/seen/{record.name} in the store")
    record.unlink()
    show_repository(store, tmp_path, "1000")


@places
def test_the_highest_number_of_a_tag_outlives_a_collection(store: Store, place: Place) -> None:
    key, memory = Digest.of(b"key"), TagMemory(store)
    memory.see("dir:/a", "latest", key, 7)
    place(store)
    collect_all(store)
    assert memory.seen("dir:/a", "latest", key) == 7
    memory.see("dir:/a", "latest", key, 6)
    assert memory.seen("dir:/a", "latest", key) == 7


@places
@pytest.mark.parametrize("host", ["mirror.example", "mirror.example:5000/ns/more", "localhost"])
def test_the_name_of_a_mirror_outlives_a_collection(store: Store, place: Place, host: str) -> None:
    root = Path("/a/mirror")
    require_remembered_host(root, host, store, stated=False)
    place(store)
    collect_all(store)
    assert remembered_host(root, store) == host
    with pytest.raises(UsageError):
        require_remembered_host(root, "other.example", store, stated=False)


def test_a_corrupt_blob_of_a_registry_outlives_a_collection(store: Store) -> None:
    memory = DamageMemory(store, "registry:it")
    memory.note(NAME)
    latest = memory.latest()
    collect_all(store)
    assert memory.has(NAME) and memory.latest() == latest
    memory.clear(NAME)
    collect_all(store)
    assert not memory.has(NAME)


def test_a_corrupt_blob_that_an_earlier_version_noted_counts(store: Store) -> None:
    memory = DamageMemory(store, "registry:it")
    memory.note(NAME)
    as_earlier_versions(store)
    assert memory.has(NAME)
    collect_all(store)
    memory.clear(NAME)
    assert not memory.has(NAME)


@pytest.mark.parametrize("value", [0, True, None, "sha256:" + "0" * 64, [17, 4], {"seen": 1}, -1, 1.5])
def test_results_of_other_kinds_are_collected(store: Store, value: object) -> None:
    store.remember(NAME, value)
    collect_all(store)
    assert not store.result(NAME).exists()


def test_what_is_recorded_anew_counts_over_an_earlier_version_s_record(store: Store) -> None:
    store.remember(NAME, 5)
    remember_seen(store, NAME, 6)
    assert recall_seen(store, NAME) == 6 and not store.result(NAME).exists()
    store.remember(NAME, 7)  # An earlier version that uses the store as well.
    assert recall_seen(store, NAME) == 7 and recall_seen(store, NAME) == 7


def test_a_planted_record_in_the_earlier_place_replaces_none(store: Store, tmp_path: Path) -> None:
    remember_seen(store, NAME, 6)
    other = Store.open(tmp_path / "other")
    other.remember(NAME, 1)
    store.result(NAME).parent.mkdir()
    for planted in (other.result(NAME).read_bytes(), b"junk"):
        store.result(NAME).write_bytes(planted)
        assert recall_seen(store, NAME) == 6


def test_an_earlier_version_s_record_counts_where_the_store_is_read_only(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remember(NAME, 5)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "refused")

    with monkeypatch.context() as patched:
        for name in ("rename", "mkdir"):
            patched.setattr(Path, name, refuse)
        assert recall_seen(store, NAME) == 5
    assert store.result(NAME).exists() and recall_seen(store, NAME) == 5


def test_a_record_that_another_process_moves_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.remember(NAME, 5)
    rename = Path.rename

    def both(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        monkeypatch.setattr(Path, "rename", rename)
        remember_seen(store, NAME, 6)
        return rename(path, moved)

    monkeypatch.setattr(Path, "rename", both)
    assert recall_seen(store, NAME) == 6


def test_a_record_counts_with_the_given_key_alone_and_on_another_machine(tmp_path: Path) -> None:
    key = b"k" * 32
    remember_seen(Store.open(tmp_path / "one", key=key), NAME, 5)
    (tmp_path / "two").mkdir(mode=0o700)
    (tmp_path / "one" / "results").rename(tmp_path / "two" / "results")
    assert recall_seen(Store.open(tmp_path / "two", key=key), NAME) == 5
    assert recall_seen(Store.open(tmp_path / "two"), NAME) is None


def test_a_damaged_record_is_told_and_put_aside(store: Store) -> None:
    remember_seen(store, NAME, 5)
    path = seen_record(store, NAME)
    assert check_store(store).read["results"] == 1
    path.write_bytes(path.read_bytes() + b"0")
    (found,) = check_store(store).damaged
    assert found.path == path and recall_seen(store, NAME) is None and not path.exists()


def test_a_link_in_the_folder_of_records_is_collected(store: Store, tmp_path: Path) -> None:
    remember_seen(store, NAME, 5)
    seen_record(store, NAME).with_name("link").symlink_to(tmp_path)
    collect_all(store)
    assert [path.name for path in (store.root / "results" / "seen").iterdir()] == [NAME.hex]
