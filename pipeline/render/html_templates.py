"""Rendering of HTML pages from relbuild's own Jinja2 templates, every value escaped.

Unlike a recipe's, such a template is part of the program and so needs no sandbox and no bounds; the values may be
foreign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


class HtmlTemplates:
    """The templates of one folder.

    `filters` are available in them by name; `legal` is applied to every text before it is escaped. An undefined name
    raises.
    """

    def __init__(self, folder: Path, filters: Mapping[str, Callable[..., object]], legal: Callable[[str], str]) -> None:
        def printed(value: object) -> object:
            return legal(value) if isinstance(value, str) and not isinstance(value, Markup) else value

        self._environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            auto_reload=False,
            optimized=False,  # Folding constants takes longer than it saves when a page is rendered once or twice.
            finalize=printed,
        )
        self._environment.filters |= dict(filters)

    def render(self, name: str, values: Mapping[str, object]) -> str:
        """Render the template `name` with `values`."""
        return self._environment.get_template(name).render(dict(values))
