"""Run a template with bounds on the lines that it executes and on its output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.render.bounded_environment import RENDERED_TEXT_LIMIT, RenderBoundPassed
from pipeline.render.template_loaders import TemplateLoader

STEP_LIMIT = 500_000
"""Lines of template code that one rendering may run: a second's work at most."""

_Trace = Callable[[FrameType, str, object], Any]


def generate_bounded(pieces: Callable[[], Iterator[str]], loader: TemplateLoader | None) -> str:
    """Join a template's output; raise RenderBoundPassed beyond the bounds on size and lines run."""
    kept: list[str] = []
    size = 0
    with _counted_steps(loader):
        for piece in pieces():
            size += len(piece)
            if size > RENDERED_TEXT_LIMIT:
                raise RenderBoundPassed(f"the output has more than {RENDERED_TEXT_LIMIT} characters")
            kept.append(piece)
    return "".join(kept)


@contextmanager
def _counted_steps(loader: TemplateLoader | None) -> Iterator[None]:
    """Count the lines of template code that run in this thread, and raise at STEP_LIMIT.

    Tracing is Python's only hook into a loop without output. A trace function that was set (by a debugger or coverage
    tool) is restored afterwards.
    """
    steps = 0

    def ours(frame: FrameType) -> bool:
        # Templates compiled from text are called "<template>" by Jinja.
        name = frame.f_code.co_filename
        return name == "<template>" or (loader is not None and name in loader.loaded)

    def line(frame: FrameType, event: str, _: object, /) -> _Trace:
        nonlocal steps
        steps += 1
        if steps > STEP_LIMIT:
            raise RenderBoundPassed(f"the template runs more than {STEP_LIMIT} steps")
        return line

    def call(frame: FrameType, event: str, argument: object, /) -> _Trace | None:
        return line(frame, event, argument) if ours(frame) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)
