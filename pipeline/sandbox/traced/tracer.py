"""Run a command, and execute its system calls about files, owners and accounts."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import IO

from pipeline import process
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.traced import ptrace
from pipeline.sandbox.traced.account_calls import ACCOUNT_CALLS
from pipeline.sandbox.traced.call_context import CallContext, Execute
from pipeline.sandbox.traced.metadata_calls import METADATA_CALLS
from pipeline.sandbox.traced.path_calls import PATH_CALLS
from pipeline.sandbox.traced.program_calls import PROGRAM_CALLS
from pipeline.sandbox.traced.syscall_filter import filter_program
from pipeline.sandbox.traced.syscall_numbers import SYSCALL_NUMBERS
from pipeline.sandbox.traced.tracee import ProcessIds, ScratchNeeded, TracedCall, Tracee
from pipeline.sandbox.traced.written_files import strip_written

_CALLS: Mapping[str, Execute] = {**PATH_CALLS, **METADATA_CALLS, **ACCOUNT_CALLS, **PROGRAM_CALLS}
_BY_NUMBER = {SYSCALL_NUMBERS[name]: execute for name, execute in _CALLS.items()}
_FILTER = filter_program([name for name in _CALLS if name != "sendto"]).hex()

_PRIVATE_ANONYMOUS, _READ_WRITE = 0x22, 3
_NEW = (ptrace.EVENT_FORK, ptrace.EVENT_VFORK, ptrace.EVENT_CLONE)
_SYSCALL_STOP = signal.SIGTRAP | 0x80


@dataclass(slots=True)
class TracedCommand:
    """A command to be traced, with its limits, and what came of it.

    `limits` are of setrlimit(2), by name. `status` is the exit status, 128 + n when signal n ended it; `started`: its
    program was executed. `too_many`: it was killed for having more than `processes`.
    """

    context: CallContext
    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    limits: Mapping[str, int]
    processes: int
    status: int = -1
    started: bool = False
    too_many: bool = False
    stopping: bool = False
    failed: BaseException | None = None
    _leader: int = 0
    _fresh: set[int] = field(default_factory=set)
    _early: set[int] = field(default_factory=set)

    def run(self, timeout: float, *, stdin: IO[bytes], stdout: int, stderr: int) -> bool:
        """Run it to its end, with all that it started.

        Returns False if it was killed after `timeout` seconds.
        Raises OSError where the machine does not let it be traced.
        """
        thread = threading.Thread(target=self._guarded, args=(stdin, stdout, stderr), name="tracer", daemon=True)
        thread.start()
        try:
            thread.join(timeout)
            in_time = not thread.is_alive()
        finally:
            self.stop()
            thread.join()
        if self.failed is not None:
            raise self.failed
        return in_time

    def stop(self) -> None:
        """Kill all of its processes."""
        self.stopping = True
        for pid in [*self.context.tracees]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _guarded(self, stdin: IO[bytes], stdout: int, stderr: int) -> None:
        try:
            self._trace(stdin, stdout, stderr)
        except BaseException as error:
            self.failed = error  # Its processes are killed with this thread (PTRACE_O_EXITKILL).
        finally:
            try:
                strip_written(self.context)
            except OSError as error:
                self.failed = self.failed or error
            self.context.tree.records.purge()
            for tracee in self.context.tracees.values():
                tracee.close()

    def _trace(self, stdin: IO[bytes], stdout: int, stderr: int) -> None:
        plan = {
            "argv": [*self.argv],
            "environment": dict(self.environment),
            "folder": str(self.folder),
            "filter": _FILTER,
            "limits": dict(self.limits),
        }
        script = Path(__file__).with_name("traced_child.py")
        child = process.start(
            [sys.executable, "-I", "-S", "-B", script, json.dumps(plan)], stdin=stdin, stdout=stdout, stderr=stderr
        )
        self._leader = child.pid
        tracee = self.context.tracees[child.pid] = Tracee(child.pid, ProcessIds())
        _, status = os.waitpid(child.pid, ptrace.WAIT_ALL)
        if os.WIFSTOPPED(status):
            ptrace.set_options(child.pid)
            ptrace.resume(child.pid)
            while self.context.tracees:
                try:
                    pid, status = os.waitpid(-1, ptrace.WAIT_ALL | ptrace.WAIT_OWN_THREAD)
                except ChildProcessError:
                    break
                self._waited(pid, status)
        else:
            self._ended(tracee.pid, status)
        child.returncode = self.status

    def _waited(self, pid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._ended(pid, status)
            return
        # A process that was killed meanwhile cannot be asked or resumed; its end is told next.
        with contextlib.suppress(ProcessLookupError):
            self._stopped(pid, os.WSTOPSIG(status), status >> 16)

    def _ended(self, pid: int, status: int) -> None:
        tracee = self.context.tracees.pop(pid, None)
        if tracee is not None:
            tracee.close()
        if pid == self._leader:
            self.status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            self.stop()

    def _stopped(self, pid: int, number: int, event: int) -> None:
        tracee = self.context.tracees.get(pid)
        if tracee is None:
            self._early.add(pid)  # A new process, before the event of who has started it.
            return
        if self.stopping:
            os.kill(pid, signal.SIGKILL)
        if event == ptrace.EVENT_SECCOMP:
            self._called(tracee)
        elif number == _SYSCALL_STOP:
            self._call_ended(tracee)
        elif event in _NEW:
            self._new(tracee, event)
        elif event == ptrace.EVENT_EXEC:
            self._executed(tracee)
        elif event == ptrace.EVENT_NONE and number == signal.SIGSTOP and pid in self._fresh:
            self._fresh.discard(pid)
            ptrace.resume(pid)
        else:
            ptrace.resume(pid, signal=0 if event or number == signal.SIGTRAP else number)

    def _new(self, tracee: Tracee, event: int) -> None:
        pid = ptrace.event_message(tracee.pid)
        child = tracee.child(pid, shares_memory=event == ptrace.EVENT_CLONE)
        self.context.tracees[pid] = child
        if pid in self._early:
            self._early.discard(pid)
            ptrace.resume(pid)
        else:
            self._fresh.add(pid)
        if len(self.context.tracees) > self.processes:
            self.too_many = True
            self.stop()
        ptrace.resume(tracee.pid)

    def _executed(self, tracee: Tracee) -> None:
        former = ptrace.event_message(tracee.pid)
        if former != tracee.pid and former in self.context.tracees:
            other = self.context.tracees.pop(former)
            tracee.close()
            other.pid = tracee.pid
            tracee = self.context.tracees[tracee.pid] = other
        tracee.executed()
        self.started = True
        ptrace.resume(tracee.pid)

    def _called(self, tracee: Tracee) -> None:
        """Execute the call at which a process is stopped, or let the kernel."""
        registers = ptrace.CallRegisters(tracee.pid)
        original = registers.copy()
        tracee.used = 0
        tracee.keep(-1)
        execute = _BY_NUMBER.get(registers.number)
        try:
            # A filter of the process's own may ask a tracer for any call; without one it is not there.
            result = -errno.ENOSYS if execute is None else execute(self.context, TracedCall(tracee, registers))
        except ScratchNeeded as needed:
            self._inject(tracee, original, needed.size)
            return
        except OSError as error:
            result = -(error.errno or errno.EIO)
        except (OverflowError, ValueError):
            result = -errno.EINVAL
        if result is not None:
            original.skip(result)
        elif registers.differs(original):
            tracee.restoring = original
        ptrace.resume(tracee.pid, to_exit=tracee.restoring is not None)

    def _inject(self, tracee: Tracee, original: ptrace.CallRegisters, size: int) -> None:
        """Have a process ask for memory first; then it makes its call once more."""
        tracee.injecting, tracee.injected_size = original, size
        registers = original.copy()
        nowhere = -1
        registers.set_call(SYSCALL_NUMBERS["mmap"], 0, size, _READ_WRITE, _PRIVATE_ANONYMOUS, nowhere, 0)
        ptrace.resume(tracee.pid, to_exit=True)

    def _call_ended(self, tracee: Tracee) -> None:
        """Go on at the end of a call: a request for memory, or one whose registers were changed."""
        original, tracee.injecting = tracee.injecting, None
        if original is None and tracee.restoring is not None:
            # Who calls relies on its registers, and the kernel may make the call once more after a signal.
            ptrace.CallRegisters(tracee.pid).restore(tracee.restoring)
            tracee.restoring = None
        elif original is not None:
            result = ptrace.CallRegisters(tracee.pid).result
            if result < 0:
                original.skip(-errno.ENOMEM)
            else:
                tracee.scratch, tracee.scratch_size = result, tracee.injected_size
                original.repeat()
        ptrace.resume(tracee.pid)
