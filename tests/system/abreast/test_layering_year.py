"""A year of updates over generated recipes (ci/layering.d, docs/layering.md): what `auto` makes clients download,
beside one layer and beside the best grouping that is found by who knows the year. The seeds here are for nothing else.

RELBUILD_SOAK=1 takes 200 recipes in place of a few."""

from __future__ import annotations

import datetime
import importlib
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "ci" / "layering.d"
RECIPES = 200 if os.environ.get("RELBUILD_SOAK") else 4
AT_MOST = 16


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("measure")


@pytest.mark.parametrize(
    ("start", "seed", "drawn"),
    [
        pytest.param(datetime.date(2023, 5, 1), 70_001, True, id="drawn from a lively year"),
        pytest.param(datetime.date(2025, 11, 24), 70_002, False, id="the year after a freeze"),
    ],
)
def test_auto_halves_what_one_layer_costs_and_is_near_what_hindsight_finds(
    measure: Any, start: datetime.date, seed: int, drawn: bool
) -> None:
    result = measure.run(RECIPES, AT_MOST, start, seed, drawn=drawn, ways=("one layer", "auto", "hindsight"))
    assert result.alone("one layer").updates > RECIPES * 100e6, "there are updates"
    assert result.layers["hindsight"] <= AT_MOST and result.layers["auto"] <= AT_MOST
    assert result.ratios("auto", "one layer")[-1] <= 0.5, "of every recipe"
    assert result.ratio("auto", "hindsight") <= 1.25
    assert result.ratio("auto", "hindsight", state=False) <= 1.25
    assert result.ratio("hindsight", "auto") < 1, "who knows the year finds no worse"


def test_rates_come_from_the_past_alone(measure: Any) -> None:
    """Two years with the same past: the first night's grouping is the same."""
    year = importlib.import_module("year")
    start = datetime.date(2022, 5, 1).toordinal()
    (product,) = year.catalogue(1, 70_003)
    first = [
        next(iter(year.auto(AT_MOST)(product, each)))[1] for each in (year.real_year(start), year.drawn_year(start, 9))
    ]
    assert year.real_year(start).nights != year.drawn_year(start, 9).nights
    assert set(first[0]) == set(first[1])
    assert all(day <= start for days in year.real_year(start).past.values() for day in days)


def test_a_client_downloads_a_layer_that_two_products_have_once(measure: Any) -> None:
    year = importlib.import_module("year")
    product = year.catalogue(1, 70_004)[0]
    real = year.real_year(datetime.date(2022, 5, 1).toordinal())
    plan = list(year.fixed(year.by_request)(product, real))
    alone, both = year.client([product], [plan]), year.client([product, product], [plan, plan])
    assert both.updates - both.state == alone.updates - alone.state and both.state == 2 * alone.state
    by_hand = sum(
        (sum(ware.size for ware in product.packages if ware.source in group) + year.LAYER_OVERHEAD)
        * len({night for source in group for night in real.nights[source]})
        for group in year.by_request(product, real)
    )
    assert alone.updates - alone.state == by_hand
