"""A renderer of pages from templates.

Imported only when there is a page to make: Jinja2 and the templates take their time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from pipeline.escaping import cleaned
from pipeline.model.night import Night, Product
from pipeline.render.pages import Pages
from pipeline.site import words
from pipeline.site.history import History, NightNote

TEMPLATES = Path(__file__).with_name("templates")

_LOG_OF_NIGHT = 5
_LOG_OF_PRODUCT = 15
"""Lines of a failure's log that are shown at once; those before are folded."""

_FILTERS: Mapping[str, Callable[..., object]] = {
    "size": words.size_text,
    "memory": words.memory_text,
    "span": words.span_text,
    "cpu": words.cpu_text,
    "iso": words.iso_text,
    "day": words.day_text,
    "weekday": words.weekday_text,
    "minute": words.minute_text,
    "clock": words.clock_text,
    "counted": words.count_text,
    "log": words.log_lines,
    "px": words.pixel_text,
}


def night_page(night: Night, nights: Sequence[NightNote], name: str) -> bytes:
    """The page of a night. `name`: the page's, below the site's root."""
    from pipeline.site.night_page import night_values

    return _page("night.html.j2", {**night_values(night, nights, name), "LOG_SHOWN": _LOG_OF_NIGHT}, night)


def product_page(products: Sequence[Product], night: Night, history: History, mirror: str) -> bytes:
    """The page of a product on its platforms."""
    from pipeline.site.product_page import product_values

    values = product_values(products, night, history, mirror)
    return _page("product.html.j2", {**values, "LOG_SHOWN": _LOG_OF_PRODUCT}, night)


def _page(template: str, values: Mapping[str, object], night: Night) -> bytes:
    return _pages().render(template, {"has_key": bool(night.key), **values}).encode()


@cache
def _pages() -> Pages:
    return Pages(TEMPLATES, _FILTERS, cleaned)
