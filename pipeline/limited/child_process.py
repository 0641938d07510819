"""The parent's side of the limited child: start it, send requests, kill it at a limit."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.errors import EnvironmentLacking
from pipeline.limited.child import CHILD_MEMORY, FRAME
from pipeline.process import PIPE, DeadlinePassed, Process, kill_group, killed_with_group, start, wait_unreaped

PROCESSOR_TIME: Final = 5
"""Seconds of processor time for one request: a template may run 500,000 steps, which takes one or two."""
CALL_DEADLINE: Final = 120.0
"""Seconds for one request in all: an overloaded machine may give a tenth of a processor."""
RESULT_SIZE_LIMIT: Final = 32 << 20
"""Bytes of one frame from the child: a text of 4 Mi characters, each as JSON's longest escape."""
QUESTIONS_LIMIT: Final = 10_000
"""Questions in one request: more templates than any recipe has."""
STDERR_SHOWN_LIMIT: Final = 1000
"""Characters of a failed child's stderr that are shown: the last lines of a traceback."""
_PIECE: Final = 1 << 16

AnswerQuestion = Callable[[object], object]
"""Function that answers the child's question during a request (JSON values)."""


class LimitMet(Exception):
    """The child met a limit, which the text names, before it had a result."""


class ChildCrashed(LimitMet):
    """The child ended before it had a result, and not by a limit that is known."""


class _Failed(Exception):
    """The child cannot serve any request; the text is from its stderr, if any."""


class _Child:
    """A running child; not thread-safe."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("child.py")
        # An isolated interpreter gets this process's module path, because libraries may be installed anywhere.
        places = json.dumps([str(script.parents[2]), *(place for place in sys.path if place.startswith("/"))])
        self.owner = os.getpid()
        self._process: Process = start(
            [sys.executable, "-I", "-B", str(script), places], stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._streams = [stream for stream in streams if stream is not None]
        self._in, self._out, self._err = (stream.fileno() for stream in self._streams)
        for handle in (self._in, self._out, self._err):
            os.set_blocking(handle, False)
        self._started = False
        self._loading: set[str] = set()
        self._unread = 0

    def is_loading(self, module: str) -> bool:
        return module in self._loading

    def load(self, module: str) -> None:
        """Let the child import a module while this process does something else."""
        if module not in self._loading:
            self._loading.add(module)
            self._send({"load": module, "seconds": PROCESSOR_TIME}, b"", time.monotonic() + CALL_DEADLINE)
            self._unread += 1

    def call(self, module: str, request: object, body: bytes, answer: AnswerQuestion | None) -> object:
        with killed_with_group(self._process):
            return self._call(module, request, body, answer)

    def _call(self, module: str, request: object, body: bytes, answer: AnswerQuestion | None) -> object:
        until = time.monotonic() + CALL_DEADLINE
        if not self._started:
            self._start(until)
        while self._unread:
            self._receive(until)
            self._unread -= 1
        self._send({"module": module, "request": request, "seconds": PROCESSOR_TIME}, body, until)
        for _ in range(QUESTIONS_LIMIT):
            told = self._receive(until)
            if not isinstance(told, dict):
                break
            if "result" in told:
                return told["result"]
            if "failed" in told:
                raise _Failed(told["failed"])
            if "stopped" in told:
                raise LimitMet(f"needs more than {CHILD_MEMORY >> 20} MiB of memory")
            if "ask" not in told or answer is None:
                break
            self._send({"answer": answer(told["ask"])}, b"", until)
        raise LimitMet(f"makes more than {QUESTIONS_LIMIT} requests")

    def _start(self, until: float) -> None:
        try:
            self._receive(until)
        except (EOFError, LimitMet):
            raise _Failed(self._read_stderr()) from None
        self._started = True

    def _read_stderr(self) -> str:
        """Return the end of its standard error, where Python prints failures."""
        with contextlib.suppress(OSError):
            return os.read(self._err, _PIECE).decode(errors="replace").strip()[-STDERR_SHOWN_LIMIT:]
        return ""

    def stop(self) -> str:
        """Kill it, and describe how it ended: by a limit, a signal or a status."""
        with contextlib.suppress(DeadlinePassed):
            # If its output has ended, it may be exiting: wait, so that its own status is seen.
            wait_unreaped(self._process, 1.0 if self._ended() else 0.0)
        kill_group(self._process)
        status = self._process.wait()
        self.forget()
        if self.was_out_of_time():
            return f"needs more than {PROCESSOR_TIME} s of processor time"
        return f"crashed its process with {signal.Signals(-status).name if status < 0 else f'status {status}'}"

    def was_out_of_time(self) -> bool:
        """Return whether the kernel ended it at its limit of processor time."""
        return self._process.returncode == -signal.SIGXCPU

    def forget(self) -> None:
        """Close this end of its pipes."""
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()

    def _ended(self) -> bool:
        """Return whether the child's output is at its end."""
        ready, _, _ = select.select([self._out], [], [], 0)
        with contextlib.suppress(BlockingIOError):
            return bool(ready) and os.read(self._out, 1) == b""
        return False

    def _send(self, head: object, body: bytes, until: float) -> None:
        data = json.dumps(head).encode()
        left = memoryview(FRAME.pack(len(data), len(body)) + data + body)
        while left:
            self._wait(self._in, select.POLLOUT, until)
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._in, left[:_PIECE]) :]

    def _receive(self, until: float) -> object:
        first, second = FRAME.unpack(self._take(FRAME.size, until))
        if first + second > RESULT_SIZE_LIMIT:
            raise LimitMet(f"makes more than {RESULT_SIZE_LIMIT >> 20} MiB of output")
        return json.loads(self._take(first + second, until))

    def _take(self, size: int, until: float) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            self._wait(self._out, select.POLLIN, until)
            with contextlib.suppress(BlockingIOError):
                piece = os.read(self._out, min(_PIECE, size - len(taken)))
                if not piece:
                    raise EOFError
                taken += piece
        return bytes(taken)

    def _wait(self, handle: int, what: int, until: float) -> None:
        poll = select.poll()
        poll.register(handle, what)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise LimitMet(f"does not end within {CALL_DEADLINE:.0f} s")


_children: list[_Child] = []
_inherited: list[_Child] = []
"""Kept, because Python would wait for the process of one that is garbage-collected."""
_lock = threading.Lock()


def call_limited(module: str, request: object, *, body: bytes = b"", answer: AnswerQuestion | None = None) -> object:
    """Call `serve(request, body, ask)` of the module in the child, and return its result.

    `request`, the result, questions and answers are JSON values. Raises LimitMet when a limit is met, ChildCrashed, and
    EnvironmentLacking `child-failed` where no child can be started or it cannot import the module.
    """
    with _lock:
        child = _running()
        try:
            return child.call(module, request, body, answer)
        except LimitMet:
            _children.clear()
            child.stop()
            raise
        except (EOFError, BrokenPipeError, ConnectionError):
            _children.clear()
            ended = child.stop()
            raise (LimitMet if child.was_out_of_time() else ChildCrashed)(ended) from None
        except _Failed as failed:
            _children.clear()
            ended = child.stop()
            raise EnvironmentLacking(
                "child-failed",
                f"the resource-limited child process failed: {str(failed) or ended}",
                hint="the cause is this machine or this installation, not a recipe",
            ) from None
        except BaseException:
            # Interrupted during a request: its next frame would be taken for another request's result.
            _children.clear()
            child.stop()
            raise


def load_early(module: str) -> None:
    """Start the child, and let it import a module that is soon called; return at once.

    What fails is told by `call_limited`.
    """
    with _lock, contextlib.suppress(EnvironmentLacking, LimitMet, OSError):
        _running().load(module)


def is_loading(module: str) -> bool:
    """Return whether this process's child was told to import a module."""
    return any(child.owner == os.getpid() and child.is_loading(module) for child in list(_children))


@atexit.register
def _stop_all() -> None:
    for child in _children:
        if child.owner == os.getpid():
            child.stop()
    _children.clear()


def _running() -> _Child:
    """Return this process's child, started if needed; one inherited by a fork is not used."""
    if _children and _children[0].owner == os.getpid():
        return _children[0]
    for child in _children:
        child.forget()
        _inherited.append(child)
    _children.clear()
    try:
        _children.append(_Child())
    except OSError as error:
        raise EnvironmentLacking(
            "child-failed",
            f"the resource-limited child process cannot be started: {error.strerror}",
            hint="raise the limit on processes or memory",
        ) from error
    return _children[0]
