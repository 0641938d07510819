"""Nothing in the store is believed because it stands there: what others wrote, and what rotted, is a miss."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.digest import Digest, digest_json
from pipeline.errors import STORE_DAMAGE_HINT, EnvironmentLacking, UsageError, VerificationError
from pipeline.store import (
    Store,
    check_store,
    collect_garbage,
    given_key,
)
from tests.support.examples import examples

NAME = Digest.of(b"step")


@dataclass
class Told:
    """A store, and what it told."""

    root: Path
    key: bytes | None = None
    notes: list[str] = field(default_factory=list)

    def open(self) -> Store:
        return Store.open(self.root, key=self.key, tell=self.notes.append)


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "store")


def quarantined(store: Store) -> list[Path]:
    return sorted((store.root / "quarantine").iterdir())


def test_a_blob_that_is_gone_is_told_with_the_way_out(told: Told) -> None:
    store, lost = told.open(), Digest.of(b"lost")
    for read in (lambda: store.read(lost, limit=10), lambda: store.reading(lost).__enter__()):
        with pytest.raises(VerificationError) as caught:
            read()
        (problem,) = caught.value.problems
        assert (problem.code, problem.hint) == ("blob-missing", STORE_DAMAGE_HINT)


def test_a_result_that_anybody_else_wrote_is_a_miss(told: Told) -> None:
    store = told.open()
    store.remember(Digest.of(b"other"), 1)
    path = store.result(NAME)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"passed": True}))
    assert store.recall(NAME) is None
    assert "not sealed with its key" in told.notes[0] and str(path) in told.notes[0]


def test_what_another_store_sealed_is_a_miss_told_once(told: Told, tmp_path: Path) -> None:
    other = Told(tmp_path / "other").open()
    names = [Digest.of(bytes([number])) for number in range(5)]
    store = told.open()
    for name in names:
        other.remember(name, {"passed": True})
        store.result(name).parent.mkdir(exist_ok=True)
        store.result(name).write_bytes(other.result(name).read_bytes())
    assert [store.recall(name) for name in names] == [None] * 5
    assert len(told.notes) == 1 and quarantined(store) == []
    store.remember(names[0], 2)
    assert store.recall(names[0]) == 2


def test_a_result_without_a_byte_is_missing_and_not_damaged(told: Told) -> None:
    """A rename without a sync leaves that after a power cut."""
    store = told.open()
    store.remember(NAME, {"passed": True})
    store.result(NAME).write_bytes(b"")
    assert check_store(store).damaged == ()
    assert store.recall(NAME) is None
    assert told.notes == [] and quarantined(store) == []
    store.remember(NAME, 2)
    assert store.recall(NAME) == 2
    store.result(NAME).write_bytes(b"\0")
    assert store.recall(NAME) is None
    assert len(told.notes) == 1 and len(quarantined(store)) == 1


def test_a_result_moved_to_another_name_is_a_miss(told: Told) -> None:
    store = told.open()
    store.remember(NAME, {"passed": True})
    other = store.result(Digest.of(b"another step"))
    other.parent.mkdir(exist_ok=True)
    store.result(NAME).rename(other)
    assert store.recall(Digest.of(b"another step")) is None
    assert len(quarantined(store)) == 1


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(where=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_a_result_with_a_flipped_bit_is_a_miss_told_by_name(told: Told, where: int, bit: int) -> None:
    told.notes.clear()
    store = told.open()
    store.remember(NAME, {"digest": str(NAME), "size": 12})
    path = store.result(NAME)
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= 1 << bit
    path.write_bytes(data)
    assert store.recall(NAME) is None
    assert len(told.notes) == 1 and str(path) in told.notes[0]
    store.remember(NAME, 3)
    assert store.recall(NAME) == 3


@pytest.mark.parametrize("length", [0, 1, 40, 100, 120])
def test_a_torn_result_is_a_miss(told: Told, length: int) -> None:
    store = told.open()
    store.remember(NAME, {"digest": str(NAME), "more": "x" * 100})
    path = store.result(NAME)
    path.write_bytes(path.read_bytes()[:length])
    assert store.recall(NAME) is None


def test_a_value_of_another_form_is_a_miss_and_no_key_error(told: Told) -> None:
    store = told.open()
    store.remember(NAME, {"digets": 5})
    assert store.recall_as(NAME, digest_json) is None
    assert "another form" in told.notes[0]

    def missing(value: object) -> str:
        assert isinstance(value, dict)
        return str(value["digest"])

    assert store.recall_as(NAME, missing) is None


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large"])
def test_a_result_that_is_no_file_of_ours_is_a_miss(told: Told, tmp_path: Path, kind: str) -> None:
    store = told.open()
    store.remember(NAME, 1)
    path = store.result(NAME)
    aside = tmp_path / "aside"
    path.rename(aside)
    match kind:
        case "link":
            path.symlink_to(aside)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "large":
            with path.open("wb") as file:
                file.truncate(1 << 40)
    assert store.recall(NAME) is None
    assert aside.exists() and len(quarantined(store)) == 1


def test_a_key_that_a_ci_gives_counts_on_the_next_machine_and_nowhere_else(tmp_path: Path) -> None:
    """The cache is one folder, which each run gets as the last one left it; the store's own key is never in it."""
    key = given_key({"RELBUILD_STORE_KEY": "k" * 64})
    Told(tmp_path, key).open().remember(NAME, 1)
    assert not (tmp_path / "key").exists()
    assert Told(tmp_path, key).open().recall(NAME) == 1
    assert Told(tmp_path, given_key({"RELBUILD_STORE_KEY": "o" * 64})).open().recall(NAME) is None
    fork = Told(tmp_path).open()
    assert fork.recall(NAME) is None
    fork.remember(NAME, "forged")
    assert Told(tmp_path, key).open().recall(NAME) is None


def test_a_given_key_is_read_from_its_file_and_has_to_be_long(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k" * 64 + "\n")
    assert given_key({"RELBUILD_STORE_KEY_FILE": str(file)}) == given_key({"RELBUILD_STORE_KEY": "k" * 64})
    assert given_key({}) is None and given_key({"RELBUILD_STORE_KEY": ""}) is None
    for environment, code in (
        ({"RELBUILD_STORE_KEY": "short"}, "store-key-short"),
        ({"RELBUILD_STORE_KEY_FILE": str(tmp_path / "none")}, "store-key-missing"),
    ):
        with pytest.raises(UsageError) as caught:
            given_key(environment)
        assert caught.value.code == code
    file.write_text("")
    with pytest.raises(UsageError):
        given_key({"RELBUILD_STORE_KEY_FILE": str(file)})


def test_a_seal_of_one_kind_is_none_of_another(told: Told) -> None:
    """Evidence is sealed under the store's key, results and trees under keys of their own."""
    store = told.open()
    store.remember(NAME, 1)
    head, _, value = store.result(NAME).read_bytes().partition(b"\n")
    assert not store.sealed(f"{NAME}\n".encode() + value, head.decode().split(" ")[4])


# --- blobs -----------------------------------------------------------------------------------------------


def test_a_blob_is_hashed_before_it_counts_and_once_only(told: Told) -> None:
    store = told.open()
    good, planted = Digest.of(b"good"), Digest.of(b"what its name says")
    store.blob(good).write_bytes(b"good")
    store.blob(planted).write_bytes(b"something else")
    assert store.sound(good) and not store.sound(planted)
    assert not store.has(planted) and "not match its digest" in told.notes[0]
    before = store.blob(good).stat().st_atime_ns
    os.utime(store.blob(good), ns=(1, store.blob(good).stat().st_mtime_ns))
    assert store.sound(good)
    assert before


@pytest.mark.parametrize("hidden", [False, True])
def test_a_blob_that_was_touched_since_is_hashed_again(told: Told, hidden: bool) -> None:
    store = told.open()
    digest = store.put(b"good")
    assert store.sound(digest)
    status = store.blob(digest).stat()
    with store.blob(digest).open("r+b") as file:
        file.write(b"evil")
    if hidden:
        os.utime(store.blob(digest), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not store.sound(digest)
    assert len(quarantined(store)) == 1
    assert store.put(b"good") == digest and store.sound(digest)


def test_a_damaged_blob_is_put_anew(told: Told) -> None:
    store = told.open()
    digest = store.put(b"good")
    store.blob(digest).write_bytes(b"evil")
    assert store.put(b"good") == digest
    assert store.read(digest, limit=10) == b"good"


def test_a_blob_that_is_a_link_does_not_count_even_to_its_bytes(told: Told, tmp_path: Path) -> None:
    store = told.open()
    (tmp_path / "elsewhere").write_bytes(b"good")
    store.blob(Digest.of(b"good")).symlink_to(tmp_path / "elsewhere")
    assert not store.sound(Digest.of(b"good"))
    assert (tmp_path / "elsewhere").exists() and not store.has(Digest.of(b"good"))


# --- folders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["blobs", "results", "tmp", "locks", "trees", "metadata", "users", "quarantine", "instances", "sandbox", "volumes"],
)
def test_a_folder_of_the_store_that_leads_elsewhere_is_refused(told: Told, tmp_path: Path, name: str) -> None:
    """An unpacked cache may hold links: what is swept and collected would be somebody's own files."""
    store = told.open()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    os.utime(outside / "precious", (1, 1))
    (store.root / name).mkdir(exist_ok=True)
    for path in (store.root / name).iterdir():
        path.unlink()
    (store.root / name).rmdir()
    (store.root / name).symlink_to(outside)
    with pytest.raises(EnvironmentLacking) as caught:
        told.open()
    assert caught.value.code == "store-not-own" and (outside / "precious").exists()


def test_collecting_follows_no_link(told: Told, tmp_path: Path) -> None:
    store = told.open()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    os.utime(outside / "precious", (1, 1))
    links = (store.root / "results" / "ab", store.root / "metadata" / "partial", store.blob(NAME))
    for link in links:
        link.symlink_to(outside)
    collect_garbage(store, 1000.0)
    assert (outside / "precious").exists()
    assert not any(os.path.lexists(link) for link in links)


def test_a_result_is_never_written_through_a_link(told: Told, tmp_path: Path) -> None:
    store = told.open()
    (tmp_path / "outside").mkdir()
    store.result(NAME).parent.symlink_to(tmp_path / "outside")
    store.remember(NAME, 1)
    assert store.recall(NAME) == 1 and list((tmp_path / "outside").iterdir()) == []


def test_a_lock_that_is_a_link_is_not_followed(told: Told, tmp_path: Path) -> None:
    store = told.open()
    with store.locked("x"):
        (lock,) = (store.root / "locks").iterdir()
    (tmp_path / "precious").write_text("x")
    lock.unlink()
    lock.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), store.locked("x"):
        pass
    assert (tmp_path / "precious").read_text() == "x"


def test_a_spoiled_key_seals_and_opens_nothing(told: Told) -> None:
    store = told.open()
    store.remember(NAME, 1)
    (store.root / "key").chmod(0o644)
    with pytest.raises(VerificationError) as caught:
        told.open().recall(NAME)
    assert caught.value.code == "store-key" and "`relbuild store fsck`" in str(caught.value.problems[0].hint)
    (damage,) = check_store(told.open()).damaged
    assert damage.kind == "key"
    assert told.open().recall(NAME) is None
