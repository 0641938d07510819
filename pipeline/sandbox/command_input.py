"""Standard input of a command in the shell's container: a pipe that this process writes to.

It has to be what a runtime gives a container: a pipe that can be opened again at its end, through /proc, and that has
no second process at its other end. A named pipe would block there, and a file would be read again from its start. So
the shell makes the command the last of a pipeline whose first command has ended by the time that it begins. Until then
it waits to open a named pipe, its gate, and this process opens the other end of its standard input through /proc. What
the pipe takes is written before the gate is opened: a command that asks whether there is input is told so.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.sandbox.cgroups import Cgroup

_LOOK_SECONDS = 0.0005
"""Seconds between the first looks at a command that is not at its gate yet; each time a quarter more."""
_LONGEST_LOOK_SECONDS = 0.02
"""Seconds between looks at most."""

_FLAGS = 6
"""Place of the kernel's flags of a process in /proc/PID/stat, counted from what follows its name."""
_PF_EXITING = 0x4
"""The process is ending (include/linux/sched.h)."""


class CommandInput:
    """Bytes for a command's standard input, and its gate at `path`, made for a block."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._left = path, memoryview(data)
        self.write_end = -1
        os.mkfifo(path, 0o644)
        path.chmod(0o644)  # Whatever this process's umask is: it is nobody's that the container knows.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def begin(self, group: Cgroup, shell: int, told: int, patience: float) -> bool:
        """Open the pipe that the command reads, and let it begin.

        `shell` is the PID of the container's first process, `told` the end of its output, on which nothing may come
        before. Returns False if the command is not there in time, or if its pipe cannot be opened or written to. It has
        not begun then, and waits at its gate, if it is there at all. `patience` are the seconds between looks, in sum:
        while the machine stands still, no command can come to its gate, and that counts for nothing.
        """
        poll = select.poll()
        poll.register(told, select.POLLIN)
        ready, pause, waited = False, _LOOK_SECONDS, 0.0
        while waited < patience and not poll.poll(0):
            try:
                ready = ready or self._fills_pipe(group, shell)
            except OSError:
                return False
            if ready and self._opens_gate():
                return True
            time.sleep(pause)
            waited += pause
            pause = min(1.25 * pause, _LONGEST_LOOK_SECONDS)
        return False

    def _fills_pipe(self, group: Cgroup, shell: int) -> bool:
        """Open the pipe of a command that is alone with the shell, and write what it takes.

        Returns False if there is no such command. Raises OSError if its pipe is refused, or if it has gone meanwhile.
        """
        command = _only_child(group, shell)
        pipe = None if command is None else _pipe_of(command, shell)
        if pipe is None:
            return False
        try:
            self.write_end = _open_pipe(pipe)
        finally:
            os.close(pipe)
        if _only_child(group, shell) != command:  # Its number could have become another's.
            raise ProcessLookupError
        self._write()
        return True

    def _opens_gate(self) -> bool:
        """Let what opens the gate go on; return False if nothing does."""
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def write_once(self) -> bool:
        """Write what the pipe takes without waiting; return whether there is more to write."""
        try:
            self._write()
        except BrokenPipeError:  # The command has closed it, or has ended.
            return False
        return bool(self._left)

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._left = self._left[os.write(self.write_end, self._left) :]

    def close(self) -> None:
        """Close this process's end of the pipe."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


def _only_child(group: Cgroup, shell: int) -> int | None:
    """Return the PID of a container's second process; None if there are more, or none.

    Zombies count: nothing is left then of what was before the command in its pipeline.
    """
    others = group.processes() - {shell}
    return others.pop() if len(others) == 1 and group.number("pids", "pids.current") == 2 else None


def _pipe_of(command: int, shell: int) -> int | None:
    """Return a handle, of O_PATH, of the anonymous pipe that is a process's standard input.

    None if that is anything else, which is not opened: the container's processes choose it. None also if it is the
    shell's own, which the first command of the pipeline has, and of a process that is ending, as that command is soon:
    the kernel lets nobody but root look at one that has no memory any more. Raises PermissionError where this process
    may not look.
    """
    try:
        of_shell = os.stat(f"/proc/{shell}/fd/0")  # noqa: PTH116 - a link of the kernel's
        seen = os.open(f"/proc/{command}/fd/0", os.O_PATH | os.O_CLOEXEC)
    except PermissionError:
        if _is_ending(command):
            return None
        raise
    except OSError:
        return None
    found = os.fstat(seen)
    if stat.S_ISFIFO(found.st_mode) and found.st_dev == _pipe_device() and found.st_ino != of_shell.st_ino:
        return seen
    os.close(seen)
    return None


def _is_ending(pid: int) -> bool:
    """Return whether a process is ending, or has ended (proc_pid_stat(5): state, ..., flags)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return True
    return bool(int(fields[_FLAGS]) & _PF_EXITING)


def _open_pipe(seen: int) -> int:
    return os.open(f"/proc/self/fd/{seen}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _pipe_device() -> int:
    """Return the number of the file system of anonymous pipes."""
    ends = os.pipe()
    try:
        return os.fstat(ends[0]).st_dev
    finally:
        for end in ends:
            os.close(end)
