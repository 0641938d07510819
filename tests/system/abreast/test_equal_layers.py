"""Layers of equal content in one image, as those that add nothing: built, tested, and built upon."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.build import build
from pipeline.oci import validate_layout
from pipeline.sandbox import SandboxRegistry, build_session
from tests.support.derived_images import Family
from tests.support.product_builds import small_products
from tests.support.rpm_factory import Forge

SMALL = "platform: small\narchitectures: [x86_64]\n"
TESTED = (
    "image:\n  entrypoint: [/usr/bin/busybox, sh, -c,"
    " \"trap 'exit 0' TERM; echo up; while :; do sleep 1; done & wait\"]\n"
    "smoke: {ready: {log: up, within: 20s}, checks: [{name: runs, file: {path: /usr/bin/busybox}}]}\n"
)


@pytest.fixture
def small(made: Forge, tmp_path: Path) -> Family:
    """A store of its own, and packages: `small`, which needs `small-base`, and one with a script."""
    products = small_products(tmp_path / "it", made)
    return Family(products.folder, products.build_env)


def names(*layers: str) -> str:
    return f"layers: [{', '.join(layers)}]\n"


def test_layers_that_add_nothing_are_built_tested_and_built_upon(small: Family) -> None:
    base = "{name: base, packages: [small]}"
    again = [f"{{name: {name}, packages: [{package}]}}" for name, package in (("one", "small"), ("two", "small-base"))]
    order = small.write("base", SMALL + names(base, *again) + TESTED)
    parent = build(replace(order, smoke=True), small.build_env)
    assert parent.report is not None and parent.report.passed
    first, one, two, *_ = parent.image.layers
    assert (one.name, two.name) == ("one", "two") and one.diff_id == two.diff_id != first.diff_id
    assert validate_layout(parent.layout) == ()
    order = small.write("child", "from: base\n" + names(*again) + TESTED)
    child = build(replace(order, smoke=True), small.build_env)
    assert child.report is not None and child.report.passed
    assert [layer.diff_id for layer in child.image.layers].count(one.diff_id) >= 4
    alone = small.build("alone", SMALL + names(base) + TESTED)
    assert alone.image.layers[0].blob == first.blob


def test_a_tree_that_comes_again_above_shows_what_it_has_and_hides(sandboxes: SandboxRegistry, closed: Path) -> None:
    def tree(name: str, *files: str, hidden: str = "") -> Path:
        root = closed / name
        root.mkdir()
        for file in files:
            (root / file).write_text(name)
        if hidden:
            os.mknod(root / hidden, stat.S_IFCHR, os.makedev(0, 0))
        return root

    lowest, empty = tree("lowest", "kept", "below"), tree("empty")
    base, other = tree("base", "both", "again", hidden="below"), tree("other", "both", "below", "added", hidden="again")
    lowers = [empty, lowest, base, empty, other, base, empty]
    with build_session(lowers, sandboxes=sandboxes) as session:
        shown = {path.name: path.read_text() for path in session.root.iterdir() if path.is_file()}
    assert shown == {"kept": "lowest", "both": "base", "again": "base", "added": "other"}
