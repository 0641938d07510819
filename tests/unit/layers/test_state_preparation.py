"""What the state layer needs, made beside the layers below it: begun once, told where it is asked for, and removed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.layers import state_preparation
from pipeline.layers.state_preparation import preparing_state
from pipeline.process import Completed, run
from pipeline.store import Store


class Sessions:
    """Stands for prepared sessions, and records what becomes of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        monkeypatch.setattr(state_preparation, "prepare_session", self)

    def __call__(self, **_: object) -> Any:
        return self

    def __enter__(self) -> str:
        self.events.append("opened")
        return "session"

    def __exit__(self, *_: object) -> None:
        self.events.append("closed")


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Sessions:
    return Sessions(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


SANDBOXES: Any = "sandboxes"


def test_nothing_is_made_that_is_not_asked_for(sessions: Sessions, store: Store) -> None:
    made: list[Path] = []
    with preparing_state(lambda folder: made.append(folder) or folder, sandboxes=lambda: SANDBOXES, store=store):
        pass
    assert made == [] and sessions.events == []


def test_it_is_made_once_and_closed_unused_where_nobody_wanted_it_after_all(sessions: Sessions, store: Store) -> None:
    made: list[Path] = []
    with preparing_state(
        lambda folder: made.append(folder) or folder, sandboxes=lambda: SANDBOXES, store=store
    ) as prepared:
        prepared.begin()
        prepared.begin()
    assert len(made) == 1 and sessions.events == ["opened", "closed"]
    assert not made[0].exists(), "the folder is removed with the database in it"


def test_results_are_given_while_the_block_lasts(sessions: Sessions, store: Store) -> None:
    with preparing_state(lambda folder: folder, sandboxes=lambda: SANDBOXES, store=store) as prepared:
        prepared.begin()
        assert prepared.database().is_dir() and prepared.session() == "session"
        assert sessions.events == ["opened"]


def test_without_sandboxes_there_is_a_database_and_no_session(sessions: Sessions, store: Store) -> None:
    with preparing_state(lambda folder: folder, sandboxes=lambda: None, store=store) as prepared:
        assert prepared.session() is None and prepared.database().is_dir()
    assert sessions.events == []


def test_what_went_wrong_is_raised_where_the_result_is_asked_for(sessions: Sessions, store: Store) -> None:
    def refuse() -> None:
        raise EnvironmentLacking("architecture-foreign", "no emulator")

    def fail(folder: Path) -> Path:
        raise OSError("disk full")

    with preparing_state(fail, sandboxes=refuse, store=store) as prepared:
        prepared.begin()
        with pytest.raises(EnvironmentLacking, match="no emulator"):
            prepared.session()
        with pytest.raises(OSError, match="disk full"):
            prepared.database()


def test_an_interrupt_ends_what_writes_the_database_and_closes_the_session(
    tmp_path: Path, sessions: Sessions, store: Store
) -> None:
    begun, ended = tmp_path / "begun", list[Completed]()

    def write(folder: Path) -> Path:
        ended.append(run(["sh", "-c", f"touch {begun}; sleep 300"], timeout=300, check=False))
        return folder

    with pytest.raises(KeyboardInterrupt), preparing_state(write, sandboxes=lambda: SANDBOXES, store=store) as prepared:
        prepared.begin()
        while not begun.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert [one.status for one in ended] == [-9] and sessions.events == ["opened", "closed"]
