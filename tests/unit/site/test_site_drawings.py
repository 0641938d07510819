"""Treemaps and plots: areas in proportion, everything inside, the same in words."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.night_record import Outcome
from pipeline.model.published_image import PackageSize
from pipeline.site.plots import PLOT_HEIGHT, plots
from pipeline.site.site_history import NO_HISTORY, Point
from pipeline.site.treemap import (
    TREEMAP_HEIGHT,
    TREEMAP_WIDTH,
    Rectangle,
    squarified,
    treemap,
)
from tests.support import nightly_examples
from tests.support.examples import examples

SIZES = st.lists(st.integers(1, 10**10), min_size=1, max_size=60).map(lambda sizes: sorted(sizes, reverse=True))
PACKAGES = st.lists(
    st.builds(
        PackageSize,
        st.text("abc", min_size=1),
        st.just("1"),
        st.just("noarch"),
        st.sampled_from("xyz"),
        st.just("s"),
        st.integers(0, 10**9),
    ),
    max_size=80,
)
CLOSE = 1e-6


def _inside(inner: Rectangle, outer: Rectangle) -> bool:
    slack = CLOSE * max(outer.width, outer.height)
    return (
        inner.x >= outer.x - slack
        and inner.y >= outer.y - slack
        and inner.x + inner.width <= outer.x + outer.width + slack
        and inner.y + inner.height <= outer.y + outer.height + slack
    )


def _apart(one: Rectangle, other: Rectangle) -> bool:
    slack = 1e-5
    return (
        one.x + one.width <= other.x + slack
        or other.x + other.width <= one.x + slack
        or one.y + one.height <= other.y + slack
        or other.y + other.height <= one.y + slack
    )


@given(SIZES, st.floats(20, 2000), st.floats(20, 2000))
def test_areas_are_in_proportion_fill_the_place_and_do_not_overlap(
    sizes: list[int], width: float, height: float
) -> None:
    place = Rectangle(7, 11, width, height)
    rectangles = squarified(sizes, place)
    assert len(rectangles) == len(sizes)
    for size, rectangle in zip(sizes, rectangles, strict=True):
        assert _inside(rectangle, place)
        assert abs(rectangle.area - size / sum(sizes) * place.area) <= CLOSE * place.area
    assert abs(sum(one.area for one in rectangles) - place.area) <= CLOSE * place.area
    for number, one in enumerate(rectangles):
        assert all(_apart(one, other) for other in rectangles[:number])


def test_areas_are_as_square_as_in_the_papers_example() -> None:
    rectangles = squarified([6, 6, 4, 3, 2, 2, 1], Rectangle(0, 0, 6, 4))
    assert [(round(one.width, 3), round(one.height, 3)) for one in rectangles[:4]] == [
        (3, 2), (3, 2), (1.714, 2.333), (1.286, 2.333),
    ]  # fmt: skip


@settings(max_examples=examples(60))
@given(PACKAGES)
def test_a_map_shows_every_byte_in_its_layer(packages: list[PackageSize]) -> None:
    areas = treemap(packages, ["x", "y", "z"])
    whole = Rectangle(0, 0, TREEMAP_WIDTH, TREEMAP_HEIGHT)
    assert sum(area.size for area in areas) == sum(package.size for package in packages)
    for area in areas:
        held = [package for package in packages if package.layer == area.name and package.size]
        assert area.size == sum(package.size for package in held) == sum(cell.size for cell in area.cells)
        assert _inside(area.place, whole)
        assert all(_inside(cell.place, area.place) for cell in area.cells)
        assert 0 < len(area.cells) <= len(held)
        total = sum(package.size for package in packages)
        assert abs(area.place.area / whole.area - area.size / total) < CLOSE


def test_small_packages_are_put_together() -> None:
    packages = [PackageSize(f"p{number}", "1", "noarch", "base", "s", 1) for number in range(50)]
    packages.append(PackageSize("large", "1", "noarch", "base", "s", 10**7))
    (area,) = treemap(packages, ["base"])
    assert [cell.label for cell in area.cells] == ["large", "50 smaller packages"]


def test_no_package_no_map() -> None:
    assert treemap([], ["base"]) == ()
    assert treemap([PackageSize("meta", "1", "noarch", "base", "s", 0)], ["base"]) == ()


# --- plots ----------------------------------------------------------------------------------------------


def _points() -> tuple[Point, ...]:
    made = nightly_examples.nights(12)
    product = next(product for product in made[-1].products if product.name == "mysql")
    history = NO_HISTORY
    for night in made:
        history = history.with_point(next(one for one in night.products if one.name == "mysql"), night)
    return history.of(product)


def test_a_plot_has_a_mark_for_each_figure_inside_its_place() -> None:
    points = _points()
    drawn = {plot.name: plot for plot in plots(points)}
    assert set(drawn) == {"size", "time", "memory", "cpu"}
    measured = [point for point in points if point.download is not None]
    assert len(drawn["size"].marks) == len(measured) == len(drawn["size"].line.split())
    failed = [point for point in points if point.outcome is Outcome.FAILED]
    assert len(drawn["size"].failed) == len(failed) >= 3
    for plot in drawn.values():
        across = [float(x) for x, _ in (pair.split(",") for pair in plot.line.split())]
        down = [float(y) for _, y in (pair.split(",") for pair in plot.line.split())]
        assert across == sorted(across) and across[0] >= 0 and across[-1] <= 1000
        assert all(0 <= y <= PLOT_HEIGHT for y in down)
        levels = [y for y, _ in plot.levels]
        assert levels[0] == PLOT_HEIGHT and levels[-1] == 0 and 2 <= len(levels) <= 4
        assert re.search(r"lowest .* highest", plot.words)


def test_a_larger_figure_stands_higher() -> None:
    points = _points()
    measured = [point for point in points if point.download is not None]
    ups = [mark.y for mark in plots(points)[0].marks]
    order = sorted(range(len(measured)), key=lambda index: measured[index].download or 0)
    assert [ups[index] for index in order] == sorted(ups, reverse=True)


@given(st.lists(st.integers(0, 2**45), min_size=2, max_size=6))
def test_any_figures_can_be_plotted(figures: list[int]) -> None:
    points = [replace(_POINT, at=number, download=size, took=size) for number, size in enumerate(figures)]
    for plot in plots(points):
        assert all(0 <= mark.y <= PLOT_HEIGHT for mark in plot.marks)


def test_one_figure_is_no_plot() -> None:
    assert plots(_points()[:1]) == () and plots(()) == ()


_POINT = _points()[0]
