"""Run and start commands with a clean environment and a deadline. Door to `subprocess`.

Every command gets a clean environment (PATH, LANG, TZ and what the caller names), no standard input
unless given, and a deadline. Output is captured up to a bound.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from pipeline.errors import EnvironmentLacking, RelbuildError
from pipeline.lazy_dataclasses import dataclass

Process = subprocess.Popen[bytes]
"""A command that was started, a `subprocess.Popen`."""

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
DeadlinePassed = subprocess.TimeoutExpired
"""The exception of `Process.wait(timeout)`."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT = 8 << 20
"""Bytes kept of a command's stdout and of its stderr: more than people read."""

_PAUSE_LEAST, _PAUSE_MOST = 0.001, 0.05
"""Seconds between looks at a process whose end the kernel does not tell."""


class CommandFailed(RelbuildError):
    """The error of a command that ended with a status other than 0, or not in time.

    `completed` has its output.
    """

    def __init__(self, completed: Completed) -> None:
        self.completed = completed
        super().__init__(
            "command-timed-out" if completed.timed_out else "command-failed",
            f"{' '.join(completed.argv[:4])} … "
            + ("did not end in time" if completed.timed_out else f"ended with status {completed.status}")
            + f": {completed.stderr.decode(errors='replace').strip()[-2000:]}",
        )


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended: `status` is its exit status, negative for a signal's number."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False


class CommandGroup:
    """Commands of the threads that work for a block; all are killed when the block raises.

    A thread joins it as the `initializer` of its pool. The block is within that of the pool, which waits for threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Process] = set()
        self._killed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        with self._lock:
            self._killed = True
            for process in self._running:
                kill_group(process)

    def join(self) -> None:
        """Add the commands that the calling thread runs from now on."""
        _thread.group = self

    def add(self, process: Process) -> None:
        """Kill the process with the others, at once if they were killed."""
        with self._lock:
            self._running.add(process)
            if self._killed:
                kill_group(process)

    def discard(self, process: Process) -> None:
        """Leave the process alone from now on."""
        with self._lock:
            self._running.discard(process)


class _Thread(threading.local):
    """The group that the calling thread's commands belong to."""

    group: CommandGroup | None = None


_thread = _Thread()


class CommandsRefused(BaseException):
    """A command was to be started where none may be.

    It is no error of the work that would have started it, which must not take it for one.
    """


def refuse_commands() -> None:
    """Have `start` raise CommandsRefused in this process from now on.

    For a process that is killed when its work is done or not wanted any more: what it had started would stay.
    """
    _refusal.is_on = True


class _Refusal:
    is_on = False


_refusal = _Refusal()


@contextlib.contextmanager
def killed_with_group(process: Process) -> Iterator[None]:
    """Have a process that works for the calling thread killed with the thread's group, if any.

    It must not be waited for within the block but by `wait_unreaped`: the group is killed by its number.
    """
    group = _thread.group
    if group is None:
        yield
        return
    group.add(process)
    try:
        yield
    finally:
        group.discard(process)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of commands: fixed variables and `extra`, nothing of the caller's."""
    return {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", **(extra or {})}


def find_program(program: str) -> Path | None:
    """Return the path of `program` (a name or an absolute path), or None."""
    if "/" in program:
        return Path(program) if os.access(program, os.X_OK) else None
    for folder in SEARCH_PATH.split(":"):
        candidate = Path(folder, program)
        if os.access(candidate, os.X_OK):
            return candidate
    return None


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: bytes | IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    output_limit: int = OUTPUT_LIMIT,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run `argv` to its end and return what it printed.

    `timeout` is in seconds; when it passes, the command's whole process group is killed. Output goes
    through unlinked temporary files, so a flood costs disk that is freed at once and never blocks, and
    only the last `output_limit` bytes of each stream are returned. With `check`, a status other than 0
    raises CommandFailed. Raises EnvironmentLacking if the program is not installed.
    """
    words = tuple(str(word) for word in argv)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as fed:
        source: IO[bytes] | int = subprocess.DEVNULL
        if isinstance(stdin, bytes):
            fed.write(stdin)
            fed.seek(0)
            source = fed
        elif stdin is not None:
            source = stdin
        process = start(
            words, stdin=source, stdout=out, stderr=err, environment=environment, cwd=cwd, pass_fds=pass_fds
        )
        timed_out = False
        try:
            with killed_with_group(process):
                wait_unreaped(process, timeout)
            status = process.wait()
        except subprocess.TimeoutExpired:
            timed_out = True
            kill_group(process)
            status = process.wait()
        except BaseException:
            kill_group(process)
            process.wait()
            raise
        completed = Completed(words, status, _tail(out, output_limit), _tail(err, output_limit), timed_out)
    if check and (status != 0 or timed_out):
        raise CommandFailed(completed)
    return completed


def start(
    argv: Sequence[str | Path],
    *,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own (unless not `new_session`) and return at once.

    The caller waits for it and bounds its time and output. Raises EnvironmentLacking if the program is not installed.
    """
    if _refusal.is_on:
        raise CommandsRefused
    words = [str(word) for word in argv]
    program = find_program(words[0])
    if program is None:
        raise EnvironmentLacking(
            "program-missing",
            f"the program '{words[0]}' was not found in PATH",
            hint="install it; `relbuild doctor` lists the requirements",
        )
    return subprocess.Popen(
        [str(program), *words[1:]],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=clean_environment(environment),
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=new_session,
    )


def wait_unreaped(process: Process, timeout: float) -> None:
    """Wait for the end of a process, and leave its number to it.

    Until somebody waits for it in the ordinary way, its group can be killed. Raises DeadlinePassed after `timeout`
    seconds.
    """
    if process.returncode is not None:
        return
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:  # Linux before 5.3, or no more files can be opened.
        _poll_unreaped(process, timeout)
        return
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(max(0.0, timeout) * 1000):
            raise DeadlinePassed(process.args, timeout)
    finally:
        os.close(handle)


def _poll_unreaped(process: Process, timeout: float) -> None:
    until, pause = time.monotonic() + timeout, _PAUSE_LEAST
    with contextlib.suppress(ChildProcessError):  # Somebody else has waited for it.
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            left = until - time.monotonic()
            if left <= 0:
                raise DeadlinePassed(process.args, timeout)
            time.sleep(min(pause, left))
            pause = min(2 * pause, _PAUSE_MOST)


def run_in_terminal(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program that a person uses, such as an editor, and return its exit status.

    It has this process's terminal and session, and an environment as the person's. Raises EnvironmentLacking
    `program-missing`.
    """
    program = shutil.which(argv[0], path=environment.get("PATH", SEARCH_PATH))
    if program is None:
        raise EnvironmentLacking(
            "program-missing", f"the program '{argv[0]}' was not found in PATH", hint="install it, or choose another"
        )
    return subprocess.run([program, *argv[1:]], env=dict(environment), check=False).returncode


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all that it started in its session, also if it has ended.

    Nothing is killed once it was waited for: its number may be another's.
    """
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _tail(file: IO[bytes], limit: int) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - limit))
    return file.read(limit)
