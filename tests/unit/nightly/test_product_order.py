"""Products on which the end of a night depends most begin first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.nightly.catalogue import load_catalogue
from pipeline.nightly.product_order import order_by_longest_path

_RECIPE = """
name: {name}
version: "1"
{more}
layers: [{{name: {name}, packages: [{name}]}}]
image: {{entrypoint: [/bin/true]}}
smoke: {{checks: [{{name: ends, command: [/bin/true]}}]}}
"""


def _ordered(folder: Path, parents: Mapping[str, str], times: Mapping[str, int]) -> list[str]:
    (folder / "repositories.yaml").write_text(
        "platforms:\n  local: {architectures: [x86_64], repositories: "
        "[{id: a, baseurls: ['file:///nowhere'], keys: [key]}]}\n"
    )
    for name, parent in parents.items():
        more = f"from: {parent}.yaml" if parent else "platform: local"
        (folder / f"{name}.yaml").write_text(_RECIPE.format(name=name, more=more))
    return [entry.name for entry in order_by_longest_path(load_catalogue([folder]), times)]


@pytest.mark.parametrize(
    ("parents", "times", "order"),
    [
        ({"a": "", "b": "", "c": ""}, {}, ["a", "b", "c"]),
        ({"a": "", "b": "", "c": ""}, {"a": 1, "b": 9, "c": 5}, ["b", "c", "a"]),
        # A short parent of a long child comes before what is longer than itself alone.
        ({"a": "", "b": "", "child": "b"}, {"a": 5, "b": 1, "child": 7}, ["b", "child", "a"]),
        # What is not known takes as long as the middle one.
        ({"a": "", "b": "", "c": "", "new": ""}, {"a": 1, "b": 9, "c": 5}, ["b", "c", "new", "a"]),
        # Without any times, those with the longest chain behind them.
        ({"a": "", "b": "", "c": "b", "d": "c"}, {}, ["b", "c", "a", "d"]),
    ],
)
def test_the_longest_path_begins_first(
    tmp_path: Path, parents: Mapping[str, str], times: Mapping[str, int], order: list[str]
) -> None:
    """With the times of the last builds, where they are known."""
    assert _ordered(tmp_path, parents, times) == order
