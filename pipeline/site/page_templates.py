"""Render the HTML pages of nightly runs and products from Jinja2 templates.

Imported only when there is a page to make, because Jinja2 and the templates take time to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from pipeline.escaping import strip_invisible
from pipeline.model.night_record import NightlyRun, Product
from pipeline.render.html_templates import HtmlTemplates
from pipeline.site import text_format
from pipeline.site.site_history import NightSummary, ProductHistory

_TEMPLATES = Path(__file__).with_name("templates")

_FILTERS: Mapping[str, Callable[..., object]] = {
    "size": text_format.size_text,
    "memory": text_format.memory_text,
    "span": text_format.span_text,
    "cpu": text_format.cpu_text,
    "iso": text_format.iso_text,
    "day": text_format.day_text,
    "weekday": text_format.weekday_text,
    "minute": text_format.minute_text,
    "clock": text_format.clock_text,
    "counted": text_format.count_text,
    "log": text_format.log_lines,
    "shown_part": text_format.shown_part,
    "px": text_format.pixel_text,
}


def render_night_page(night: NightlyRun, nights: Sequence[NightSummary], name: str) -> bytes:
    """Render the page of a nightly run. `name`: its path below the site's root."""
    from pipeline.site.night_page import night_values

    return _page("night.html.j2", night_values(night, nights, name), night)


def render_compare_page(before: Product, after: Product, night: NightlyRun) -> bytes:
    """Render the page that compares an image of a product with the one before it."""
    from pipeline.site.compare_page import compare_values

    return _page("compare.html.j2", compare_values(before, after, night), night)


def render_product_page(
    products: Sequence[Product],
    night: NightlyRun,
    history: ProductHistory,
    mirror: str,
    compared: frozenset[str] = frozenset(),
) -> bytes:
    """Render the page of a product with all its platforms.

    `compared`: names of the pages beside it that compare two images.
    """
    from pipeline.site.product_page import product_values

    return _page("product.html.j2", product_values(products, night, history, mirror, compared), night)


def render_find_page(night: NightlyRun) -> bytes:
    """Render the index page of what is published."""
    from pipeline.site.find_page import find_values

    return _page("find.html.j2", find_values(night), night)


def _page(template: str, values: Mapping[str, object], night: NightlyRun) -> bytes:
    return _pages().render(template, {"has_key": bool(night.key), **values}).encode()


@cache
def _pages() -> HtmlTemplates:
    return HtmlTemplates(_TEMPLATES, _FILTERS, strip_invisible)
