"""Where the time goes: the record of tasks, its table and its trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.cli.progress_recorder import (
    REST,
    Instant,
    ProgressRecorder,
    RecordedTask,
    require_writable,
    stage_times,
    task_path_lines,
    timing_lines,
)
from pipeline.errors import UsageError
from pipeline.progress import QUIET, task


def recorded(stage: str, began: tuple[float, float], ended: tuple[float, float], done: int = 0) -> RecordedTask:
    return RecordedTask(stage, "x", Instant(*began), Instant(*ended), done, "bytes", 1, False)


def clock(*instants: tuple[float, float]) -> Callable[[], Instant]:
    left: Iterator[tuple[float, float]] = iter(instants)
    return lambda: Instant(*next(left))


def test_time_of_several_stages_at_once_is_shared_and_none_is_lost() -> None:
    tasks = [
        recorded("fetch", (1.0, 0.0), (3.0, 2.0), 10),
        recorded("layer", (2.0, 0.5), (5.0, 4.0), 20),
        recorded("layer", (4.0, 3.0), (5.0, 4.0), 5),
    ]
    times = {one.stage: one for one in stage_times(tasks, Instant(0.0, 0.0), Instant(6.0, 4.5))}
    assert list(times) == ["fetch", "layer", REST]
    assert (times["fetch"].wall, times["layer"].wall, times[REST].wall) == (2.0, 3.0, 2.0)
    # 0.5 alone, half of 1.5 together; half of 1.5, then 1 and 1; half a second at the end.
    assert (times["fetch"].cpu, times["layer"].cpu, times[REST].cpu) == (1.25, 2.75, 0.5)
    assert sum(one.cpu for one in times.values()) == 4.5
    assert (times["fetch"].waiting, times[REST].waiting) == (0.5, 1.5)
    assert (times["layer"].tasks, times["layer"].bytes) == (2, 25)


def test_a_clock_of_cpu_that_goes_back_takes_nothing_from_others() -> None:
    (fetch, rest) = stage_times([recorded("fetch", (0.0, 1.0), (1.0, 0.5))], Instant(0.0, 1.0), Instant(1.0, 0.5))
    assert fetch.cpu == 0.0 and rest.wall == 0.0


def test_a_command_without_tasks_has_only_the_rest() -> None:
    (rest,) = stage_times([], Instant(1.0, 1.0), Instant(3.0, 2.0))
    assert (rest.stage, rest.wall, rest.cpu, rest.tasks) == (REST, 2.0, 1.0, 0)
    assert list(timing_lines([rest], 2.0))[-1].split() == ["all", "2.00s", "1.00s", "1.00s"]


def test_the_critical_path_is_the_chain_that_ends_last() -> None:
    """With the time before each in which nothing of the chain was done, and no task that ran beside it."""
    tasks = [
        recorded("fetch", (0.5, 0.0), (2.0, 1.0)),
        recorded("verify", (0.5, 0.0), (1.0, 0.5)),
        recorded("layer", (2.25, 1.0), (4.0, 2.0)),
    ]
    lines = [line.split() for line in task_path_lines(tasks, Instant(0.0, 0.0))]
    assert [line[:4] for line in lines] == [
        ["critical", "path:"],
        ["fetch", "1.50s", "after", "0.50s"],
        ["layer", "1.75s", "after", "0.25s"],
    ]
    assert list(task_path_lines([], Instant(0.0, 0.0))) == []


def test_a_trace_has_each_task_with_its_times_in_microseconds(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    ticks = clock((10.0, 1.0), (10.5, 1.0), (11.0, 1.25), (12.0, 2.0))
    recorder = ProgressRecorder(QUIET, timings=False, trace=path, clock=ticks)
    with (
        pytest.raises(ValueError, match="no"),
        task(recorder, "fetch", "https://me:secret@host/x", unit="bytes") as one,
    ):
        one.advance(7)
        raise ValueError("no")
    recorder.close()
    recorder.close()
    (event,) = json.loads(path.read_text())["traceEvents"]
    assert (event["ph"], event["cat"], event["ts"], event["dur"]) == ("X", "fetch", 500_000, 500_000)
    assert event["args"] == {"bytes": 7, "failed": True, "cpu_ms": 250}
    assert "secret" not in event["name"]


def test_what_is_shown_is_closed_first_and_the_table_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = ProgressRecorder(QUIET, timings=True, trace=None, clock=clock((0.0, 0.0), (2.0, 1.0)))
    recorder.close()
    recorder.close()
    assert capsys.readouterr().err.count("waiting") == 1


def test_a_trace_that_cannot_be_written_is_refused_before_the_work_and_a_warning_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "none" / "trace.json"):
        with pytest.raises(UsageError) as caught:
            require_writable(path)
        assert caught.value.code == "trace-unwritable"
    ProgressRecorder(QUIET, timings=False, trace=tmp_path, clock=clock((0.0, 0.0), (1.0, 0.0))).close()
    assert "the trace cannot be written" in capsys.readouterr().err


def test_a_trace_replaces_a_trace_and_no_other_file(tmp_path: Path) -> None:
    """Of `build --trace nginx.yaml redis.yaml` the first is the trace's."""
    trace, recipe = tmp_path / "trace.json", tmp_path / "nginx.yaml"
    for _ in range(2):
        require_writable(trace)
        ProgressRecorder(QUIET, timings=False, trace=trace, clock=clock((0.0, 0.0), (1.0, 0.0))).close()
    recipe.write_text("name: nginx\n")
    with pytest.raises(UsageError) as caught:
        require_writable(recipe)
    assert caught.value.code == "not-a-trace" and recipe.read_text() == "name: nginx\n"
    (tmp_path / "empty").touch()
    for path in (tmp_path / "empty", Path("/dev/null")):
        require_writable(path)
