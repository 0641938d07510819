"""What clients download in a year of updates, by the way that packages are grouped into layers. See docs/layering.md.

Usage: ci/layering [--recipes N] [--at-most N] [--start YYYY-MM-DD] [--seed N] [--drawn] [--jobs N] [--thorough]
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from hindsight import best_grouping
from year import (
    Downloads,
    Plan,
    Planner,
    Product,
    Year,
    auto,
    by_request,
    catalogue,
    client,
    drawn_year,
    fixed,
    largest_apart,
    one_layer,
    real_year,
)

SEVERAL = 10
"""Products of a client that has several."""

BASE_SHARE = 6
"""Layers of the base where it is a block of its own."""


@dataclass(frozen=True, slots=True)
class Question:
    """One product in one year, for some ways (none: all); `thorough`: hindsight searches five times as long."""

    product: Product
    year: Year
    at_most: int
    seed: int
    thorough: bool = False
    ways: tuple[str, ...] = ()


def planners(question: Question) -> dict[str, Planner]:
    """The ways by name."""
    most, seed = question.at_most, question.seed
    effort = 5 if question.thorough else 1
    return {
        "one layer": fixed(one_layer),
        "base and product": fixed(by_request),
        "largest sources apart": fixed(largest_apart(most)),
        "auto": auto(most),
        "auto, included base": auto(most, below=min(BASE_SHARE, most // 2)),
        "auto, never regrouped": auto(most, moving=False),
        "hindsight": fixed(lambda product, year: best_grouping(product, year, most, seed=seed, effort=effort)),
    }


def plans(question: Question) -> dict[str, Plan]:
    """Way → the product's layers from each night on."""
    return {
        name: list(planner(question.product, question.year))
        for name, planner in planners(question).items()
        if name in (question.ways or (name,))
    }


@dataclass(frozen=True, slots=True)
class Result:
    """Downloads by way: of a client of each product alone, of those that have SEVERAL, added up, and how many `layers`
    a product has on average."""

    each: Mapping[str, Sequence[Downloads]]
    several: Mapping[str, Downloads]
    layers: Mapping[str, float]

    def alone(self, way: str) -> Downloads:
        """A client of each product, added up."""
        return sum(self.each[way], Downloads(0, 0, 0))

    def ratio(self, way: str, other: str, *, state: bool = True) -> float:
        """Bytes of a year's updates of all products beside another way's, with or without the state layers."""
        mine, theirs = self.alone(way), self.alone(other)
        if state:
            return mine.updates / theirs.updates
        return (mine.updates - mine.state) / (theirs.updates - theirs.state)

    def ratios(self, way: str, other: str) -> list[float]:
        """The same of each product, the best first."""
        pairs = zip(self.each[way], self.each[other], strict=True)
        return sorted(mine.updates / theirs.updates for mine, theirs in pairs)


def measure(products: Sequence[Product], made: Sequence[Mapping[str, Plan]]) -> Result:
    """`made` are the plans of each product."""
    each, several, layers = {}, {}, {}
    for way in made[0]:
        mine = [one[way] for one in made]
        each[way] = [client([product], [plan]) for product, plan in zip(products, mine, strict=True)]
        groups = [(products[n : n + SEVERAL], mine[n : n + SEVERAL]) for n in range(0, len(products), SEVERAL)]
        several[way] = sum((client(*group) for group in groups), Downloads(0, 0, 0))
        layers[way] = sum(len(plan[0][1]) for plan in mine) / len(mine)
    return Result(each, several, layers)


def run(
    recipes: int,
    at_most: int,
    start: datetime.date,
    seed: int,
    *,
    drawn: bool,
    jobs: int = 1,
    thorough: bool = False,
    ways: tuple[str, ...] = (),
) -> Result:
    """A catalogue for a year."""
    day = start.toordinal()
    year = drawn_year(day, seed) if drawn else real_year(day)
    products = catalogue(recipes, seed)
    questions = [Question(product, year, at_most, seed, thorough, ways) for product in products]
    if jobs == 1:
        return measure(products, [plans(question) for question in questions])
    with ProcessPoolExecutor(jobs) as pool:
        return measure(products, list(pool.map(plans, questions)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="ci/layering")
    parser.add_argument("--recipes", type=int, default=20)
    parser.add_argument("--at-most", type=int, default=16)
    parser.add_argument("--start", type=datetime.date.fromisoformat, default=datetime.date(2024, 11, 25))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drawn", action="store_true", help="draw the weeks of the year, instead of the real one")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--thorough", action="store_true", help="let hindsight search five times as long")
    given = parser.parse_args()
    result = run(
        given.recipes,
        given.at_most,
        given.start,
        given.seed,
        drawn=given.drawn,
        jobs=given.jobs,
        thorough=given.thorough,
    )
    print(json.dumps({**vars(given), "start": str(given.start)}))
    print(f"{'':24}{'alone, GB':>10}{'state':>7}{'/ one':>7}{'worst':>7}{'/ hindsight':>12}{'worst':>7}", end="")
    print(f"{'no state':>9}{'of ten, GB':>12}{'first, MB':>10}{'layers':>8}")
    for way, several in result.several.items():
        alone = result.alone(way)
        print(
            f"{way:24}{alone.updates / 1e9:10.2f}{alone.state / 1e9:7.2f}"
            f"{result.ratio(way, 'one layer'):7.3f}{result.ratios(way, 'one layer')[-1]:7.3f}"
            f"{result.ratio(way, 'hindsight'):12.3f}{result.ratios(way, 'hindsight')[-1]:7.3f}"
            f"{result.ratio(way, 'hindsight', state=False):9.3f}"
            f"{several.updates / 1e9:12.2f}{several.first / 1e6:10.0f}{result.layers[way]:8.1f}"
        )
    beyond = sum(ratio > 1.25 for ratio in result.ratios("auto", "hindsight"))
    print(f"auto is more than 25 % from hindsight in {beyond} of {given.recipes} recipes")


if __name__ == "__main__":
    main()
