"""Start of the child process that renders templates, before one is to be rendered.

Nothing of `jinja2` is imported here: a build starts the child first of all, and imports it beside other work.
"""

from __future__ import annotations

from pipeline import limited

RENDERER = "pipeline.render.template_child"
"""Module whose `serve` runs in the child."""


def start_renderer() -> None:
    """Start the child process that renders, while this one does something else first."""
    limited.load_early(RENDERER)
