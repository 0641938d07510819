"""The child process's program: reads requests from stdin, executes them, writes results.

Run as a script by an isolated interpreter (`python -I`), whose only argument is `sys.path` as a JSON array. A frame is
the lengths of a JSON text and of the bytes after it, then both. The first frame that it writes says that it has
started: a failure before that is not caused by a request.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import resource
import struct
import sys
import time
from collections.abc import Callable

FRAME = struct.Struct(">QQ")
CHILD_MEMORY = 1 << 30
"""Bytes of address space: the interpreter takes 50 MB, the largest text that is searched 64 MB."""

AskParent = Callable[[object], object]
"""Function that sends the parent a question during a request and returns its answer (JSON values)."""


def main() -> None:
    """Serve until there are no more requests."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY, CHILD_MEMORY))
    sys.path[:] = json.loads(sys.argv[1])
    _write({"started": True})
    while True:
        head, body = _read()
        if not isinstance(head, dict):
            return
        # At the soft limit the kernel sends SIGXCPU; time used by earlier requests is added.
        used = math.ceil(time.process_time())
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (used + int(head["seconds"]), resource.RLIM_INFINITY))
        _write({"loaded": _loaded(str(head["load"]))} if "load" in head else _done(head, body))


def _loaded(module: str) -> bool:
    """Import a module before it is called; a failure is told when it is."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True


def _done(head: dict[str, object], body: bytes) -> object:
    try:
        serve = importlib.import_module(str(head["module"])).serve
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    try:
        return {"result": serve(head["request"], body, _ask)}
    except MemoryError:
        return {"stopped": "memory"}


def _ask(question: object) -> object:
    _write({"ask": question})
    head, _ = _read()
    if not isinstance(head, dict):
        os._exit(0)
    return head["answer"]


def _read() -> tuple[object, bytes]:
    """Read the next frame; its head is None at the end of input."""
    start = sys.stdin.buffer.read(FRAME.size)
    if len(start) < FRAME.size:
        return None, b""
    first, second = FRAME.unpack(start)
    return json.loads(sys.stdin.buffer.read(first)), sys.stdin.buffer.read(second)


def _write(value: object) -> None:
    data = json.dumps(value).encode()
    sys.stdout.buffer.write(FRAME.pack(len(data), 0) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
