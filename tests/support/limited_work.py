"""What tests have done in a child with limits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def serve(request: object, body: bytes, ask: Callable[[object], object]) -> object:
    """Does what the request says."""
    match request:
        case {"spin": True}:
            while True:
                pass
        case {"hold": int(size)}:
            return len(bytearray(size))
        case {"flood": int(size)}:
            return "x" * size
        case {"sleep": seconds}:
            time.sleep(float(str(seconds)))
        case {"exit": int(status)}:
            os._exit(status)
        case {"ask": question}:
            return [ask(question), ask(question)]
        case {"see": True}:
            return [sorted(os.environ), os.getpid(), str(Path.cwd())]
        case {"write": path}:
            with open(str(path), "w") as file:  # noqa: PTH123
                file.write("x" * 100)
    return [request, len(body)]
