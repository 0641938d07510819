"""Configuration files from Jinja2 templates. The only door to `jinja2`.

A template is a function of the values it is given and of the template files it names, of nothing else: it
sees no clock, no randomness, no environment, no Python objects beyond plain data. An undefined name is an
error, never an empty string, and a template that runs away is stopped by bounds that count work rather than
time, so that it stops at the same place everywhere.
"""

from pipeline.render.bounded_environment import FILTERS
from pipeline.render.template_loaders import TEMPLATE_LIMIT
from pipeline.render.templates import (
    Rendered,
    RenderMemory,
    Templates,
    check_template,
    evaluate_template,
    is_template,
)

__all__ = [
    "FILTERS",
    "TEMPLATE_LIMIT",
    "RenderMemory",
    "Rendered",
    "Templates",
    "check_template",
    "evaluate_template",
    "is_template",
]
