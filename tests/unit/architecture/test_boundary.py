"""The process's edge: signals while it loads, streams that are closed or full, places that cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import HUNG

ROOT = Path(__file__).parents[3]

_SIGNALLED = """
import builtins, os, signal, sys, threading
sys.path.insert(0, {root!r})
number, module = {number}, {module!r}

class Finder:
    "Sends the signal when a module is about to be imported: Ctrl-C in the middle of the imports."
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)
            if signal.getsignal(number) is not signal.SIG_IGN:
                builtins.print = print_later
        return None

def print_later(*words, print=print, **how):
    "Prints an answer after the signal, which may come a moment after the import."
    if "file" not in how:
        threading.Event().wait()
    print(*words, **how)

sys.meta_path.insert(0, Finder())
sys.argv = ["relbuild", "version"]
from pipeline.cli import main
main()
"""


def relbuild(*words: str | Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own; `shell`: redirections."""
    command = " ".join([sys.executable, "-m", "pipeline", *(str(word) for word in words), shell])
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=HUNG,
        check=False,
    )


@pytest.mark.parametrize("module", ["typer", "pipeline.errors", "rpm._rpm"])
@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGINT, b"interrupted\n"), (signal.SIGTERM, b"terminated\n")], ids=["int", "term"]
)
def test_a_signal_while_it_loads_ends_it_with_one_line(number: signal.Signals, words: bytes, module: str) -> None:
    program = _SIGNALLED.format(root=str(ROOT), number=int(number), module=module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=HUNG, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (128 + number, words, b"")


_WAITING = """
import os, sys, threading
sys.path.insert(0, {root!r})
sys.argv = ["relbuild", "version"]
from pipeline.cli.app import CommandContext, perform
from pipeline.cli.progress_display import ProgressStyle, open_progress
from pipeline.cli.signals import end_at_once
end_at_once()

def act(context):
    try:
        print("begun", flush=True)
        threading.Event().wait(30)
    finally:
        print("put away", flush=True)
    return 0

perform(act, CommandContext(open_progress(ProgressStyle.NONE)), "run it again")
"""


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, b"interrupted"), (signal.SIGTERM, b"terminated")])
def test_a_signal_while_a_command_runs_lets_it_put_away_what_is_open_and_say_how_to_go_on(
    number: signal.Signals, word: bytes
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WAITING.format(root=str(ROOT))], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.stdout.read() == b"put away\n"
        assert process.stderr.read() == word + b"; run it again\n"
        assert process.wait(HUNG) == 128 + number


def test_what_was_ignored_when_it_was_started_stays_ignored() -> None:
    """`nohup`, and a shell that starts something with `&`, mean it."""
    program = _SIGNALLED.format(root=str(ROOT), number=int(signal.SIGINT), module="typer")
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=HUNG, check=False)
    assert done.returncode == 0 and done.stdout.startswith(b"relbuild ")


def test_a_reader_that_left_ends_it_as_a_broken_pipe_does_and_in_silence() -> None:
    done = relbuild("schema", shell="| exec true")
    assert (done.returncode, done.stderr) == (141, b"")


def test_diagnostics_that_nobody_reads_do_not_end_the_work(tmp_path: Path) -> None:
    done = relbuild("validate", tmp_path / "x", "--json", shell="2> >(exec true)")
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    done = relbuild("validate", tmp_path / "x", shell="2>/dev/full")
    assert done.returncode == 2


def test_an_answer_that_cannot_be_written_is_told() -> None:
    for words, shell, code in (
        (("version",), ">/dev/full", "stdout-unwritable"),
        (("version", "--json"), ">/dev/full", "stdout-unwritable"),
        (("version",), ">&-", "stdout-unwritable"),
    ):
        done = relbuild(*words, shell=shell)
        assert (done.returncode, done.stderr.decode().startswith(f"error[{code}]")) == (8, True), (shell, done)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_json_on_a_closed_standard_output_is_refused_before_the_work() -> None:
    done = relbuild("version", "--json", shell=">&-")
    assert done.returncode == 2 and b"error[stdout-closed]" in done.stderr


def test_no_file_is_opened_in_place_of_a_closed_standard_stream(tmp_path: Path) -> None:
    """Where standard output is closed, the next file to be opened would get its number, and a child's words."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from pipeline.cli.standard_streams import open_streams\nopen_streams()\n"
        f"import os; file = open({str(tmp_path / 'blob')!r}, 'w'); os._exit(file.fileno())"
    )
    command = f"{sys.executable} -c '{program.replace(chr(39), chr(34))}' <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", command], timeout=HUNG, check=False)
    assert done.returncode > 2


@pytest.mark.costly
@pytest.mark.parametrize("option", ["--output", "--store"])
def test_a_file_where_the_output_or_the_store_should_be_is_refused_at_once(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = relbuild("build", "nginx", option, tmp_path / "file", HOME=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert done.stderr.decode().startswith(f"error[not-a-directory] {tmp_path / 'file'}")
    assert not (tmp_path / ".cache").exists() or option == "--store", "refused before anything was made"
