"""Nights whose pages tests look at."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from pipeline.model.night_record import (
    NightlyRun,
)
from tests.support import nightly_examples

NIGHTS = nightly_examples.nights(6)
LAST = NIGHTS[-1]


def one(**changes: object) -> NightlyRun:
    """A night with one product."""
    product = next(product for product in LAST.products if product.name == "nginx")
    return replace(LAST, products=(nightly_examples.changed(product, **changes),))


def page_of(folder: Path, name: str = "nginx") -> str:
    return (folder / name / "index.html").read_text()


class SitePage(HTMLParser):
    """What a browser makes of a page: elements, attributes, texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def links(self) -> set[str]:
        """Every `href` and `src`."""
        return {value for _, attrs in self.elements for key in ("href", "src") if (value := attrs.get(key)) is not None}
