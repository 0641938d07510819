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


MAKERS = {kind.__name__: part for part, kind in RECORDS.items()}


@cache
def _filled() -> frozenset[tuple[str, str]]:
    """The fields that some call fills, with the part that they are of."""
    return frozenset(_arguments())


def _arguments() -> Iterator[tuple[str, str]]:
    """Arguments of every call that makes or changes a part of a product's record, where it is filled."""
    for path in (PIPELINE / "model" / "published_image.py", *(PIPELINE / "nightly").glob("*.py")):
        own = "published" if path.stem == "published_image" else ""
        for part, call in _calls(ast.parse(path.read_text()), own):
            yield from ((part, keyword.arg) for keyword in call.keywords if keyword.arg)
            if ast.unparse(call.func) in MAKERS:
                yield from ((part, one.name) for one, _ in zip(fields(RECORDS[part]), call.args, strict=False))


def _calls(tree: ast.Module, own: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls of a constructor, and of `replace` with what is held or given as that part. `own`: the part of `self`."""
    given = {id(node.value): node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in MAKERS:
                yield MAKERS[called], node
            elif called == "replace":
                held = ast.unparse(node.args[0]).rpartition(".")[2]
                part = next(
                    (one for one in (given.get(id(node)), held) if one in RECORDS), own if held == "self" else ""
                )
                if part:
                    yield part, node


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_every_field_of_a_product_is_filled_by_the_night(part: str, name: str) -> None:
    assert (part, name) in _filled(), f"nothing fills {RECORDS[part].__name__}.{name}: see PublishedImage.with_build"


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_every_field_of_a_product_is_shown(part: str, name: str) -> None:
    site = [*(PIPELINE / "site").glob("*.py"), *(PIPELINE / "site" / "templates").glob("*.j2")]
    shown = re.compile(rf"\b(?:{'|'.join(map(re.escape, SHOWN_AS[part]))})\.{name}\b")
    assert any(shown.search(path.read_text()) for path in site), (
        f"no page shows {RECORDS[part].__name__}.{name}: see pipeline/site/templates/product.html.j2"
    )
