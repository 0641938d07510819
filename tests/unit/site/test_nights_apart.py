"""Two nights that begin at the same time on one mirror: each has its record and its page, and both are shown."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.model.night_record import NightlyRun
from pipeline.site import write_site
from pipeline.site.site_history import NO_STATE, read_site_document
from tests.support import nightly_examples

FIRST = replace(nightly_examples.nights(1)[-1], run="first")


def written(folder: Path) -> dict[str, str]:
    """Name of each night's record → the run that it tells of."""
    return {path.stem: json.loads(path.read_text())["run"] for path in sorted((folder / "nights").glob("*.json"))}


@pytest.mark.costly
@pytest.mark.parametrize("later", [0, 1, 400], ids=["the-same-millisecond", "the-next", "the-same-second"])
def test_both_nights_of_one_second_are_kept_and_shown(later: int, tmp_path: Path) -> None:
    began = FIRST.began // 1000 * 1000
    first = replace(FIRST, began=began, exit_code=0)
    second = replace(FIRST, began=began + later, run="second", exit_code=1)
    write_site(first, tmp_path)
    write_site(second, tmp_path)
    assert sorted(written(tmp_path).values()) == ["first", "second"]
    state = read_site_document(tmp_path / "data" / "site.json", NO_STATE)
    assert [one.run for one in state.nights] == ["first", "second"]
    assert len({one.began for one in state.nights}) == 2
    index = (tmp_path / "index.html").read_text()
    for note in state.nights:
        assert f'href="nights/{note.stamp}.html"' in index
        page = (tmp_path / "nights" / f"{note.stamp}.html").read_text()
        assert f"exit code {note.exit_code}" in page and f'href="../nights/{note.stamp}.json"' in page


def test_a_night_that_is_written_again_replaces_its_own_pages_alone(tmp_path: Path) -> None:
    other = replace(FIRST, run="second")
    for night in (FIRST, other, FIRST, other, replace(FIRST, exit_code=1)):
        write_site(night, tmp_path)
    assert sorted(written(tmp_path).values()) == ["first", "second"]
    assert [
        one.exit_code
        for one in read_site_document(tmp_path / "data" / "site.json", NO_STATE).nights
        if one.run == "first"
    ] == [1]


def _write(night: NightlyRun, folder: Path) -> None:
    write_site(night, folder)


def test_five_nights_at_once_from_five_processes_are_five(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    runs = [replace(FIRST, products=FIRST.products[:2], run=f"run-{number}") for number in range(5)]
    processes = [context.Process(target=_write, args=(night, tmp_path)) for night in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 5
    assert sorted(written(tmp_path).values()) == [night.run for night in runs]


def test_what_a_killed_night_left_goes_with_the_next(tmp_path: Path) -> None:
    write_site(FIRST, tmp_path)
    for name in ("nights/.2020-01-01T000000Z.json.draft", "data/.site.json.draft", ".atom.xml.draft"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "nights" / "kept.txt").write_bytes(b"of somebody else")
    write_site(replace(FIRST, run="second"), tmp_path)
    assert not list(tmp_path.rglob("*.draft")) and (tmp_path / "nights" / "kept.txt").exists()
