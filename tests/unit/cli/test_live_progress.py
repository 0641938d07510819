"""Live progress on a terminal: nothing of it before the first task, and nothing left at the end."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cli.progress_bars import Live
from pipeline.progress import task
from tests.support.patience import HUNG
from tests.support.terminal import Screen, drawn_lines, run_in_terminal

PLATFORM = "platforms: {local: {families: [], repositories: [{id: own, baseurls: ['file:///own'], keys: [key]}]}}\n"
RECIPE = 'name: {name}\nversion: "1"\nplatform: local\nlayers: [{{name: base, packages: [bash]}}]\n'

COUNTED = """
import os, sys
from pathlib import Path
import pipeline.processors
pipeline.processors.usable_processors = lambda: 2.0  # With one of them nothing is read beside.
real, forks = os.fork, []

def fork():
    forks.append(real())
    return forks[-1]

os.fork = fork
from pipeline.cli import main
try:
    main()
finally:
    Path(sys.argv[2]).with_name("forks").write_text(str(len(forks)))
"""

SHOWN = """
import os, sys, threading, time
from pipeline.cli.app import CommandContext, perform
from pipeline.cli.messages import print_json, print_lines
from pipeline.cli.progress_display import ProgressStyle, close, open_progress
from pipeline.errors import UsageError
from pipeline.progress import task
progress = open_progress(ProgressStyle.AUTO)

def act(context):
{body}
    return 0

perform(act, CommandContext(progress), "go on")
"""


def shown(*body: str) -> str:
    """Return a command that does what the lines say."""
    return SHOWN.format(body="\n".join(f"    {line}" for line in body))


def until_drawn(times: int) -> tuple[str, ...]:
    """Return lines that wait until bars that are shown have been drawn so often from then on."""
    return (
        "from pipeline.cli.progress_bars import Bars",
        "pictures, refresh = threading.Semaphore(0), Bars.refresh",
        "Bars.refresh = lambda bars: (refresh(bars), pictures.release())",
        f"assert all([pictures.acquire(timeout={HUNG}) for _ in range({times})])",
    )


def build(folder: Path, name: str, *words: str | Path, recipe: str = RECIPE) -> tuple[list[str], bytes, int]:
    """Build a recipe, whose repository is not there, on a terminal.

    Returns the screen's lines, what was written to it, and the count of forks.
    """
    (folder / "repositories.yaml").write_text(PLATFORM)
    (folder / f"{name}.yaml").write_text(recipe.format(name=name))
    store = ("--store", folder / "store", "--output", folder / "output")
    ended = run_in_terminal(COUNTED, "build", folder / f"{name}.yaml", *store, *words)
    assert ended.status not in (0, 70) and ended.screen.has_cursor, ended
    return ended.screen.lines, ended.written, int((folder / "forks").read_text())


@pytest.mark.parametrize("style", ["auto", "plain", "json", "none"])
def test_a_recipe_is_read_by_a_child_on_a_terminal_too(style: str, tmp_path: Path) -> None:
    lines, written, forks = build(tmp_path, "bash", "--progress", style)
    assert forks == 1, lines
    assert any(line.startswith("error[") for line in lines), lines
    assert b"\x1b" not in written, "nothing was begun"


def test_an_error_before_the_first_task_is_all_that_is_written(tmp_path: Path) -> None:
    lines, written, _ = build(tmp_path, "bash", recipe="name: {name}\nnothing: 1\n")
    assert lines[0].startswith("error["), lines
    assert b"\x1b" not in written


def test_what_is_printed_stands_above_the_bars_in_its_order() -> None:
    ended = run_in_terminal(
        shown(
            "print_lines('before')",
            "progress.warn('early')",
            "assert threading.active_count() == 1",
            "with task(progress, 'fetch', 'one', total=2) as running:",
            "    print_lines('while one')",
            "    running.advance(2)",
            "    with task(progress, 'layer', 'two') as other:",
            "        time.sleep(0.3)",
            "        other.note('noted')",
            "        progress.warn('late')",
            "print_json([1])",
            "print_lines('after')",
        )
    )
    lines = [line.rpartition(",")[0] if "✓" in line else line for line in ended.screen.lines]
    assert lines == [
        "before",
        "! warning  early",
        "while one",
        "! warning  late",
        "✓    layer  two  noted",
        "✓    fetch  one  2 items",
        "[",
        "  1",
        "]",
        "after",
    ]
    assert ended.status == 0 and ended.screen.has_cursor
    assert "━" in ended.written.decode()


@pytest.mark.parametrize("recorded", [False, True])
def test_a_process_can_fork_where_nothing_is_drawn_and_bars_go_on_after_it(recorded: bool) -> None:
    used = "ProgressRecorder(progress, timings=False, trace=None)" if recorded else "progress"
    ended = run_in_terminal(
        shown(
            "from pipeline.cli.progress_recorder import ProgressRecorder",
            "from pipeline.forked_child import may_fork",
            "from pipeline.progress import undrawn",
            "import pipeline.cli.progress_bars as bars, pipeline.forked_child as module",
            "module.usable_processors = lambda: 2.0",
            f"module._LEFT_WITHIN = bars._ENDED_WITHIN = {HUNG}  # A busy machine may let go of a thread late.",
            f"used = {used}",
            "with undrawn(used):",
            "    assert may_fork()",
            "with task(used, 'fetch', 'one'):",
            "    assert not may_fork()",
            "    for _ in range(20):",
            "        with undrawn(used):",
            "            assert may_fork()",
            "        assert not may_fork()",
            *(f"    {line}" for line in until_drawn(3)),
            "used.close()",
            "with undrawn(used):",
            "    assert may_fork()",
            "assert may_fork()",
        )
    )
    assert ended.status == 0 and ended.screen.has_cursor, ended.screen.lines
    assert [line.rpartition("  ")[0] for line in ended.screen.lines] == ["✓    fetch  one"]
    assert sum("━" in line for line in drawn_lines(ended.written.decode())) >= 3


def test_an_interrupt_while_nothing_is_drawn_leaves_the_cursor() -> None:
    ended = run_in_terminal(
        shown(
            "from pipeline.progress import undrawn",
            "with task(progress, 'fetch', 'one'), undrawn(progress):",
            "    raise KeyboardInterrupt",
        )
    )
    assert ended.status == 130 and ended.screen.has_cursor
    assert ended.screen.lines[0].startswith("✗    fetch  one") and len(ended.screen.lines) == 2


def test_rich_is_imported_for_the_first_task() -> None:
    ended = run_in_terminal(
        shown(
            "print_lines(str('rich' in sys.modules))",
            "progress.finish(progress.start('fetch', 'one'))",
            "print_lines(str('rich' in sys.modules))",
        )
    )
    lines = ended.screen.lines
    assert (lines[0], lines[-1]) == ("False", "True") and len(lines) == 3, lines


@pytest.mark.parametrize("when", ["before", "in a task"])
def test_the_answer_is_in_the_pipe_that_stdout_is(when: str) -> None:
    around = "with task(progress, 'fetch', 'one'):" if when == "in a task" else "if True:"
    ended = run_in_terminal(shown(around, "    print_json({'a': 1})", "    print_lines('said')"), piped=True)
    assert json.loads(ended.answer) == {"a": 1}
    assert [line for line in ended.screen.lines if "✓" not in line] == ["said"]


def test_after_the_end_of_the_display_there_are_no_bars() -> None:
    """An editor has the terminal then, or an instance."""
    ended = run_in_terminal(
        shown(
            "close(progress)",
            "with task(progress, 'fetch', 'one'):",
            "    assert threading.active_count() == 1",
            "    print_lines('said')",
        )
    )
    assert "━" not in ended.written.decode() and b"\x1b[?25" not in ended.written
    said, done = ended.screen.lines
    assert said == "said" and done.rpartition("  ")[0] == "✓    fetch  one"


@pytest.mark.parametrize(
    ("number", "told", "status"),
    [
        (signal.SIGINT, "interrupted; go on", 130),
        (signal.SIGTERM, "terminated; go on", 143),
        (signal.SIGHUP, "the terminal was closed; go on", 129),
    ],
)
def test_a_signal_leaves_the_cursor_and_no_bar(number: int, told: str, status: int) -> None:
    def interrupt(process: subprocess.Popen[bytes], _: int) -> None:
        os.kill(process.pid, number)

    program = "from pipeline.cli.signals import end_at_once\nend_at_once()\n" + shown(
        "with task(progress, 'fetch', 'one'):", f"    time.sleep({HUNG})"
    )
    ended = run_in_terminal(program, at="⠹", act=interrupt)  # The third picture: nothing else is under way.
    lines = ended.screen.lines
    assert ended.status == status and ended.screen.has_cursor
    assert len(lines) == 2 and lines[0].startswith("✗    fetch  one") and lines[1] == told, lines


def test_bars_follow_the_size_of_the_terminal() -> None:
    def resize(_: subprocess.Popen[bytes], terminal: int) -> None:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 60, 0, 0))

    label = "long " * 12
    program = shown(
        f"with task(progress, 'fetch', {label!r}):",
        "    while os.get_terminal_size(2).columns == 120:",
        "        time.sleep(0.01)",
        *(f"    {line}" for line in until_drawn(2)),  # The first may have been begun before.
    )
    ended = run_in_terminal(program, at="0:00:00", act=resize)
    drawn = [line for line in drawn_lines(ended.written.decode()) if "fetch" in line and "✓" not in line]
    assert any(60 < len(line) <= 120 for line in drawn) and 0 < len(drawn[-1]) <= 60, drawn
    assert ended.screen.has_cursor and ended.status == 0


@pytest.mark.parametrize("step", ["set_live", "show_cursor", "push_render_hook"])
def test_a_signal_while_bars_are_started_leaves_the_cursor(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=80)
    real = getattr(console, step)

    def interrupted(*given: object) -> None:
        monkeypatch.setattr(console, step, real)
        raise KeyboardInterrupt

    monkeypatch.setattr(console, step, interrupted)
    live = Live(console)
    with pytest.raises(KeyboardInterrupt), task(live, "fetch", "one"):
        pytest.fail("the task began")
    live.close()
    live.close()
    assert Screen(drawn.getvalue()).has_cursor
