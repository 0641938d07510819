"""The `Executor` that runs each task in a process of its own on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from dataclasses import field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import ExcludedWorker
from pipeline.nightly.executors.executor_protocol import MachineFault, Requirements, TaskFunction, TaskResult
from pipeline.nightly.executors.progress_ipc import EventKind, ProgressEvent, ProgressReceiver, ProgressSender
from pipeline.progress import Progress

WAITING_STAGE = "smoke"
"""The stage of a build in which it mostly waits for containers."""


@dataclass(slots=True)
class _RunningTask:
    process: BaseProcess
    pipe: Connection
    receiver: ProgressReceiver
    testing: set[int] = field(default_factory=set)
    """Numbers of its progress tasks in which a container is tested."""

    def receive(self, event: ProgressEvent) -> None:
        """Report an event, and note whether the task waits for a container now."""
        if event.kind is EventKind.START and event.stage == WAITING_STAGE:
            self.testing.add(event.number)
        elif event.kind is EventKind.FINISH:
            self.testing.discard(event.number)
        self.receiver.receive(event)


@dataclass(slots=True)
class ProcessExecutor:
    """The `Executor` of processes of this machine.

    Each task has a process of its own, so that one that is killed costs its task only. With `overlap`, a task that
    tests a container leaves its place to another meanwhile: testing is mostly waiting.
    """

    progress: Progress
    jobs: int
    overlap: bool = False
    _context: ForkServerContext = field(default_factory=lambda: multiprocessing.get_context("forkserver"))
    _running: dict[str, _RunningTask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Preload the modules in the fork server, from which all task processes are forked."""
        self._context.set_forkserver_preload(["pipeline.nightly.product_job"])

    @property
    def size(self) -> int:
        """See `Executor`. At most twice `jobs`."""
        testing = sum(bool(running.testing) for running in self._running.values())
        return self.jobs + (min(self.jobs, testing) if self.overlap else 0)

    @property
    def several_machines(self) -> bool:
        """See `Executor`."""
        return False

    @property
    def set_aside(self) -> tuple[ExcludedWorker, ...]:
        """See `Executor`. There is but one machine."""
        return ()

    def start(self, name: str, function: TaskFunction, work: object, requirements: Requirements) -> None:
        """See `Executor`. Requirements are not checked: a task fails for what the machine lacks."""
        mine, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_perform, args=(theirs, function, work), name=f"relbuild {name}", daemon=False
        )
        # Ctrl-C reaches all processes of the terminal; only this one handles it and ends the others.
        resource_tracker.ensure_running()  # First: it lets the signal through again.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._running[name] = _RunningTask(process, mine, ProgressReceiver(self.progress, name))

    def next_result(self) -> TaskResult | None:
        """See `Executor`."""
        size = self.size
        while self.size <= size:
            size = self.size
            ready = wait([running.pipe for running in self._running.values()])
            for name, running in list(self._running.items()):
                if running.pipe in ready:
                    ended = self._receive(name, running)
                    if ended is not None:
                        return ended
        return None

    def _receive(self, name: str, running: _RunningTask) -> TaskResult | None:
        unread = ""
        try:
            said = running.pipe.recv()
        except (EOFError, OSError):
            said = None
        except Exception as error:  # A class that this process reads otherwise raises anything.
            said, unread = None, f"what its process sent cannot be read: {type(error).__name__}: {error}"
            running.process.terminate()
        if isinstance(said, ProgressEvent):
            running.receive(said)
            return None
        running.receiver.end()
        running.process.join()
        running.pipe.close()
        del self._running[name]
        if isinstance(said, TaskResult):
            return replace(said, name=name)
        code = running.process.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        return TaskResult(name, lost=unread or f"its process ended {how} before the task was done")

    def end(self, name: str) -> None:
        """End a task that is under way. Called from any thread.

        Its result will say that a signal ended it.
        """
        running = self._running.get(name)
        if running is not None:
            running.process.terminate()

    def close(self) -> None:
        """See `Executor`."""
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join()
            running.pipe.close()
        self._running.clear()


def _perform(pipe: Connection, function: TaskFunction, work: object) -> None:
    # Not ignored and not blocked, which child processes would inherit: a container may stop by this signal.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, name="relbuild parent", daemon=True).start()
    one_at_a_time = threading.Lock()

    def tell(said: ProgressEvent) -> None:
        with one_at_a_time:
            if not pipe.closed:  # A thread may report when the task is done.
                pipe.send(said)

    try:
        returned = function(work, ProgressSender(tell))
        if isinstance(returned, MachineFault):
            ended = TaskResult("", returned.result, fault=returned.why, unsuitable=returned.unsuitable)
        else:
            ended = TaskResult("", returned)
    except (EnvironmentLacking, OSError) as error:
        ended = TaskResult("", lost=f"{type(error).__name__}: {error}", fault=str(error))
    except Exception as error:  # What it was is told where people watch.
        ended = TaskResult("", lost=f"{type(error).__name__}: {error}")
    with one_at_a_time:
        with contextlib.suppress(BrokenPipeError):  # The parent has ended.
            pipe.send(ended)
        pipe.close()


def _end_with_parent() -> None:
    """Wait until the process that sent the work ends, and then kill this one.

    PR_SET_PDEATHSIG will not do: its parent is the fork server, not the process that sent the work.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
