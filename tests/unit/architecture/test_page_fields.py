"""A field of a product's record is filled by a run and shown on a page, or it is named here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from pipeline.model.night_record import Product, ProductRun
from pipeline.model.published_image import PublishedImage

PIPELINE = Path(__file__).parents[3] / "pipeline"
RECORDS = {"published": PublishedImage, "run": ProductRun, "product": Product}
SHOWN_AS = {"published": ("published", "image"), "run": ("run",), "product": ("product", "one", "p", "products[0]")}
"""The names by which pages and templates hold the parts of a product."""

PARTS = {"run", "published"}
FIELDS = [(part, one.name) for part, kind in RECORDS.items() for one in fields(kind) if one.name not in PARTS]


@cache
def _filled() -> frozenset[str]:
    """The fields that some call fills."""
    return frozenset(_arguments())


def _arguments() -> Iterator[str]:
    """Names of the arguments of every call that makes or changes a value, where a product's record is filled."""
    for path in (PIPELINE / "model" / "published_image.py", *(PIPELINE / "nightly").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("replace", *_names()):
                yield from (keyword.arg for keyword in node.keywords if keyword.arg)
                if ast.unparse(node.func) in _names():
                    kind = next(kind for kind in RECORDS.values() if kind.__name__ == ast.unparse(node.func))
                    yield from (one.name for one, _ in zip(fields(kind), node.args, strict=False))


def _names() -> set[str]:
    return {kind.__name__ for kind in RECORDS.values()}


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_every_field_of_a_product_is_filled_by_the_night(part: str, name: str) -> None:
    assert name in _filled(), f"nothing fills {RECORDS[part].__name__}.{name}: see PublishedImage.with_build"


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_every_field_of_a_product_is_shown(part: str, name: str) -> None:
    site = [*(PIPELINE / "site").glob("*.py"), *(PIPELINE / "site" / "templates").glob("*.j2")]
    shown = re.compile(rf"\b(?:{'|'.join(map(re.escape, SHOWN_AS[part]))})\.{name}\b")
    assert any(shown.search(path.read_text()) for path in site), (
        f"no page shows {RECORDS[part].__name__}.{name}: see pipeline/site/templates/product.html.j2"
    )
