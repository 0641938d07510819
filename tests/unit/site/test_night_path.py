"""Which products decided how long a night took."""

from __future__ import annotations

from dataclasses import replace

from pipeline.model.night_record import NightlyRun, Outcome, Product, ProductRun
from pipeline.site import path_lines, summary_markdown
from pipeline.site.night_path import concurrency, night_path

BEGAN = 1_764_041_400_000


def _product(name: str, began: int, took: int, *, parent: str = "", steps: tuple[tuple[str, int], ...] = ()) -> Product:
    run = ProductRun(Outcome.BUILT, "requested", began=BEGAN + began if took else 0, took=took, steps=steps)
    return Product(name, f"{name}.yaml", "local", "x86_64", run, parent=parent)


def _night(*products: Product) -> NightlyRun:
    ended = BEGAN + max((one.run.began - BEGAN + one.run.took for one in products if one.run.took), default=0)
    return NightlyRun(BEGAN, ended, "recipes", "dir:mirror", "host", products)


NIGHT = _night(
    _product("base", 500, 4000, steps=(("fetch", 900), ("layer", 2500), ("state", 300), ("smoke", 200))),
    _product("other", 500, 3000),
    _product("app", 4510, 5000, parent="base", steps=(("layer", 3000), ("smoke", 1500))),
    _product("late", 9600, 1000),
    _product("same", 0, 0),
)


def test_the_path_is_what_the_last_product_waited_for() -> None:
    """With what was waited before each, and whether that was for its parent."""
    found = [(one.product.name, one.waited, one.parent) for one in night_path(NIGHT)]
    assert found == [("base", 500, False), ("app", 10, True), ("late", 90, False)]


def test_the_longest_stages_are_named() -> None:
    """The longest first, and not all of them."""
    assert night_path(NIGHT)[0].stages == (("layer", 2500), ("fetch", 900), ("state", 300))


def test_it_is_told_in_lines() -> None:
    """One for each product, after the average of how many were worked on."""
    assert list(path_lines(NIGHT)) == [
        "critical path (1.2 products at a time on average):",
        "  base 4.0 s (waited 500 ms; layer 2.5 s, fetch 900 ms, state 300 ms)",
        "  app 5.0 s after its parent (layer 3.0 s, smoke 1.5 s)",
        "  late 1.0 s",
    ]


def test_the_summary_has_it() -> None:
    """As a list, escaped like all that workers say."""
    hostile = replace(NIGHT.products[0], run=replace(NIGHT.products[0].run, steps=(("<b>", 9),)))
    said = summary_markdown(replace(NIGHT, products=(hostile, *NIGHT.products[1:])))
    assert "### Critical path" in said
    assert "- app 5\\.0 s after its parent" in said
    assert "<b>" not in said


def test_a_night_in_which_nothing_was_done_has_none() -> None:
    """Nor has an average of its products."""
    quiet = _night(_product("same", 0, 0))
    assert list(path_lines(quiet)) == []
    assert concurrency(quiet.products, 0) == 0.0
