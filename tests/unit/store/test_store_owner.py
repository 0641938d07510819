"""A store that another user owns is refused before anything is written in it, and its key is never put aside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.store import Store, check_store

NAME = Digest.of(b"step")
OTHER = 4711

Give = Callable[..., None]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """A function that makes another user the owner of files, as far as relbuild looks."""
    owned: list[os.stat_result] = []
    real = {name: getattr(os, name) for name in ("stat", "lstat", "fstat")}

    def seen(name: str) -> Callable[..., os.stat_result]:
        def status(*given: object, **more: object) -> os.stat_result:
            found: os.stat_result = real[name](*given, **more)
            if not any(os.path.samestat(found, one) for one in owned):
                return found
            values, times = list(found), {"st_atime_ns": found.st_atime_ns, "st_mtime_ns": found.st_mtime_ns}
            values[4] = OTHER
            return os.stat_result(values, times)

        return status

    for name in real:
        monkeypatch.setattr(os, name, seen(name))

    def give(*paths: Path) -> None:
        owned.extend(real["lstat"](path) for path in paths)

    return give


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    store.remember(NAME, 1)
    return store


def refused(root: Path) -> UsageError:
    before = content(root)
    with pytest.raises(UsageError) as caught:
        Store.open(root)
    assert content(root) == before
    return caught.value


def content(root: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_the_store_of_another_users_key_is_refused_and_left_as_it_is(store: Store, give: Give) -> None:
    (store.root / "metadata").rmdir()  # It would be made.
    give(store.root / "key")
    (problem,) = refused(store.root).problems
    assert problem.code == "store-of-another" and f"uid {OTHER}" in problem.message
    assert problem.hint is not None and "as that user" in problem.hint and "--store" in problem.hint


def test_a_key_of_another_user_is_never_put_aside(store: Store, give: Give) -> None:
    """Also where the store was opened before the key came to be there."""
    key = (store.root / "key").read_bytes()
    opened = Store(store.root)
    give(store.root / "key")
    for use in (lambda: check_store(opened), lambda: opened.recall(NAME), lambda: opened.remember(NAME, 2)):
        with pytest.raises(UsageError) as caught:
            use()
        assert caught.value.code == "store-of-another"
    assert (store.root / "key").read_bytes() == key and list((store.root / "quarantine").iterdir()) == []


def test_a_store_without_key_is_that_of_the_user_who_made_it(store: Store, give: Give) -> None:
    (store.root / "key").unlink()
    give(store.root, store.root / "blobs")
    assert refused(store.root).code == "store-of-another"
    assert not (store.root / "key").exists()


@pytest.mark.parametrize("name", ["", "blobs"])
def test_a_volume_of_root_and_restored_blobs_of_anybody_are_no_store_of_another(
    store: Store, give: Give, name: str
) -> None:
    (store.root / "key").unlink()
    give(store.root / name)
    assert Store.open(store.root).recall(NAME) is None
    assert check_store(Store.open(store.root)).damaged == ()


def test_a_given_key_opens_a_restored_store_of_any_user(store: Store, give: Give) -> None:
    give(*(path for path in (store.root, *store.root.rglob("*")) if path.parent.name != "users"))
    given = Store.open(store.root, key=b"k" * 32)
    given.remember(NAME, 3)
    assert given.recall(NAME) == 3 and check_store(given).damaged == ()


def test_a_damaged_key_of_ones_own_is_put_aside(store: Store) -> None:
    (store.root / "key").write_bytes(b"short")
    with pytest.raises(VerificationError):
        Store.open(store.root).recall(NAME)
    (damage,) = check_store(Store.open(store.root)).damaged
    assert damage.kind == "key"
