"""The report of a build in which nothing changed."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from pipeline.build.remembered_build import (
    remember_build,
    settle_reports,
)
from pipeline.store import Store
from tests.support.finished_builds import (
    NAME,
    FinishedBuild,
    report_file,
)


def test_a_report_tells_once_that_nothing_was_made_again(done: FinishedBuild) -> None:
    known = done.recalled()
    assert known is not None and known.fresh
    assert settle_reports(done.env.store, NAME, known, lambda: 0.04) is not None
    report = json.loads((done.folder / "output" / "demo.report" / "report.json").read_text())
    assert report["image"]["layers"] == [{"name": "base", "reused": True}]
    assert report["lock"] == {"wrote": False, "changes": []}
    assert (report["verdict_reused"], report["took_ms"]) == (True, 40)
    again = done.recalled()
    assert again is not None and not again.fresh


def test_a_report_that_cannot_be_written_is_left_to_the_build(done: FinishedBuild) -> None:
    known = done.recalled()
    assert known is not None
    shutil.rmtree(done.folder / "output" / "demo.report")
    assert settle_reports(done.env.store, NAME, known, lambda: 0.0) is None


def test_a_report_that_another_build_has_written_since_is_left_alone(done: FinishedBuild) -> None:
    known = done.recalled()
    assert known is not None
    other = report_file(done).read_text().replace("9000", "9001")
    report_file(done).write_text(other)
    assert settle_reports(done.env.store, NAME, known, lambda: 0.0) is None
    assert report_file(done).read_text() == other


def test_a_full_disk_of_the_store_is_no_error_of_a_build_that_is_done(
    done: FinishedBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    known = done.recalled()
    assert known is not None
    monkeypatch.setattr(Store, "remember", full)
    assert settle_reports(done.env.store, NAME, known, lambda: 0.0) is not None
    remember_build(done.env.store, NAME, known)
