"""Folders for layouts that a store would have in its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.oci import require_layout_place
from pipeline.store import Store, require_outside_stores
from tests.support.typed_command import run_typed


@pytest.mark.parametrize("place", ["store", "store/blobs", "store/blobs/not/there", "store/instances", "link", "dots"])
def test_a_folder_in_a_store_is_refused(place: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("store/blobs")
    folder = tmp_path / "store/../store/tmp/x" if place == "dots" else tmp_path / place
    for refuse in (require_outside_stores, lambda one: require_layout_place(one / "tiny")):
        with pytest.raises(UsageError) as caught:
            refuse(folder)
        (problem,) = caught.value.problems
        assert (problem.code, problem.place) == ("output-in-store", str(folder)) and str(store.root) in problem.message
    assert not any(files for _, _, files in os.walk(store.root / "blobs"))


@pytest.mark.parametrize("place", ["", "blobs", "output", "store.d", "store/nightly", "store/../output"])
def test_a_folder_outside_of_a_stores_own_is_taken(place: str, store: Store, tmp_path: Path) -> None:
    """A worker of a cluster has its output below its store by default."""
    assert store.root == tmp_path / "store"
    require_outside_stores(tmp_path / place)


@pytest.mark.parametrize(
    "words",
    [
        "build demo.yaml --output OUT",
        "run demo.yaml --output OUT",
        "smoke demo.yaml --output OUT",
        "nightly . --to dir:m --key k --output OUT",
        "pull dir:m/tiny:1 --key k --output OUT",
        "worker 127.0.0.1:1 --output OUT",
    ],
)
def test_each_command_that_writes_layouts_refuses_it(
    words: str,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_STORE", str(store.root))
    for name in ("demo.yaml", "repositories.yaml", "k"):
        (tmp_path / name).touch()
    assert run_typed(words.replace("OUT", "store/blobs"), monkeypatch) == 2
    assert "error[output-in-store] store/blobs" in capsys.readouterr().err
    assert list((store.root / "blobs").iterdir()) == []
