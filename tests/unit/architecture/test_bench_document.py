"""`ci/bench document`: the measured parts of docs/performance.md and the plots, from a run's results."""

from __future__ import annotations

import importlib
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
BENCH = ROOT / "ci" / "bench.d"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """The files of the folder import each other by bare names."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def _results() -> Any:
    turns, results = importlib.import_module("turns"), importlib.import_module("results")
    figures = {
        "cold build": {
            "relbuild": turns.Figure((4.0, 4.2, 4.1), "s"),
            "dnf & <buildah>": turns.Figure((8.0, 8.2, 8.1), "s"),
        },
        "stage of a cold build": {"layer": turns.Figure((2.0, 2.5, 2.0), "s"), "state": turns.Figure((1.0,), "s")},
    }
    rows = (
        turns.Row("speed", turns.Figure((1.9, 2.0, 2.1), "×"), turns.Goal(1.5, at_least=True)),
        turns.Row("nothing", turns.Figure((0.0, 0.5, 0.5), "s"), turns.Goal(0.25), turns.Figure((0.2,), "s")),
        turns.Row("layers", turns.Figure((1.7, 1.8, 1.9), "×"), turns.Goal(1.25), turns.Figure((1.5,), "×")),
        turns.Row("size", turns.Figure((10.0, 10.0, 10.0), "bytes")),
    )
    curve = turns.Curve("a cold build in packages", "packages", "s", ((1.0, 0.5), (400.0, 2.5), (800.0, 4.5)))
    cold = results.SectionResult("cold-gzip", "Cold", "r1", 60.0, figures, rows, (curve,), ("dnf writes no lock.",))
    night = {"night": {"all": turns.Figure((3.0, 2.0), "s")}}
    since = "Traceback\nno | disk (relbuild r2)"
    shared = results.SectionResult("shared", "Nights", "r1", 9.0, night, (), (), (), False, later_failure=since)
    lost = results.SectionResult("mkosi", "mkosi", "r1", 1.0, {}, (), (), (), failed="Traceback\nno | here")
    return results.Results({"cores": "2", "dnf": "4.14.0"}, {"product": "mysql"}, (cold, shared, lost))


def _known() -> Any:
    turns = importlib.import_module("turns")
    titles = {"cold-gzip": "Cold", "mkosi": "mkosi", "prune": "Pruning of many tags"}
    return {name: turns.Section(name, title, lambda session: None) for name, title in titles.items()}


def test_the_document_has_all_parts_and_keeps_the_rest() -> None:
    """What a person wrote between them stays."""
    document = importlib.import_module("document")
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    parts = document.parts(_results(), _known())
    once = document.written(text, parts)
    assert "| speed | 2.00 times | 1.90 … 2.10 | ≥ 1.5 | met |  |" in once
    assert "| nothing | 0.50 s | 0.00 … 0.50 | ≤ 0.25 | **not met** | 0.20 s |" in once
    assert "| layers | 1.80 times | 1.70 … 1.90 | ≤ 1.25 | **not met, beyond the machine** | 1.50 |" in once
    assert "1 of 3 goals are met. 1 of the others is beyond the machine." in once
    assert "| size | 10 bytes | 10 … 10 |  |" in once
    assert "| mkosi | not measured: no \\| here | | | | |" in once
    assert "| Pruning of many tags | not measured | | | | |" in once
    assert "- dnf writes no lock." in once and "Measured on: cores 2, dnf 4.14.0." in once
    assert "Settings: product mysql." in once
    assert "relbuild r1, medians of 3 turns after one that warms up: `cold-gzip`.\n" in once
    assert "relbuild r1, medians of 2 turns, none of which warms up: `shared`.\n" in once
    assert "- Nights: the figures are those of relbuild r1; a later run failed: no \\| disk (relbuild r2)" in once
    assert "| night | all | 2.50 s | 2.00 … 3.00 | 2 |" in once
    assert "## What peers do less" in once
    assert document.written(once, parts) == once


def test_a_document_without_a_part_is_refused() -> None:
    """Else a figure would be missing and nobody would know."""
    document, turns = importlib.import_module("document"), importlib.import_module("turns")
    with pytest.raises(turns.BenchFailed, match="has the parts table"):
        document.written("<!-- measured: table -->\n<!-- end -->\n", document.parts(_results(), _known()))


def test_every_picture_of_the_document_is_drawn() -> None:
    """And no plot is drawn that no page shows."""
    document = importlib.import_module("document")
    shown = "\n".join(document.parts(_results(), _known()).values())
    drawn = document.plots(_results())
    assert sorted(drawn) == ["goals.svg", "growth-a-cold-build-in-packages.svg", "seconds-cold-gzip.svg", "where.svg"]
    assert all(f"(performance/{name})" in shown for name in drawn)


def test_plots_are_whole_and_everything_is_inside() -> None:
    """Well-formed, with a title, and no shape beyond the picture, also where a value is 0."""
    for name, text in importlib.import_module("document").plots(_results()).items():
        root = ElementTree.fromstring(text)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        assert root.findtext(f"{SVG}title"), name
        for shape in root:
            for attribute, most in (
                ("x", width),
                ("x1", width),
                ("x2", width),
                ("cx", width),
                ("y", height),
                ("y1", height),
                ("y2", height),
                ("cy", height),
            ):
                assert -0.5 <= float(shape.attrib.get(attribute, 0)) <= most + 0.5, (name, shape.attrib)


def test_the_same_results_give_the_same_bytes() -> None:
    """So that a difference in the plots is one in the figures."""
    document = importlib.import_module("document")
    assert document.plots(_results()) == document.plots(_results())
