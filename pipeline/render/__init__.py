"""Rendering of configuration files from a recipe's Jinja2 templates. The door to `jinja2`.

A template's text depends only on the values it is given and on the template files it names: it has no access to a
clock, randomness, the environment or Python objects beyond plain data. An undefined name is an error, never an empty
string. A template that runs away is stopped by bounds that count work rather than time, so at the same place
everywhere.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.render.bounded_environment import FILTERS
    from pipeline.render.renderer_process import start_renderer
    from pipeline.render.template_files import TEMPLATE_LIMIT, TemplateFiles
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
    "TemplateFiles",
    "Templates",
    "check_template",
    "evaluate_template",
    "is_template",
    "start_renderer",
]
