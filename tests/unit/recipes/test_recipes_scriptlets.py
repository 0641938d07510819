"""The key `scriptlets` of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.model.scriptlets import ScriptletMode, ScriptletName, ScriptletRules, Waiver
from pipeline.recipes import load_recipe
from tests.support.recipe_folder import good, only_problem, write

BASE = """\
    name: base
    version: "0"
    platform: centos
    layers: [{name: base, packages: [bash]}]
    scriptlets:
      mode: rpm
      waive: [{package: s6, script: transfiletriggerin, reason: nobody listens}]
    """


@pytest.mark.parametrize(
    ("said", "mode"),
    [("", "strict"), ("scriptlets: strict\n", "strict"), ("scriptlets: rpm\n", "rpm"), ("scriptlets: {}\n", "strict")],
)
def test_a_word_or_nothing_says_the_mode(tmp_path: Path, said: str, mode: str) -> None:
    assert good(tmp_path, said).scriptlets == ScriptletRules(ScriptletMode(mode))


def test_waivers_have_a_package_a_script_and_a_reason(tmp_path: Path) -> None:
    rules = good(tmp_path, "scriptlets: {waive: [{package: s6, script: post, reason: why not}]}\n").scriptlets
    assert rules == ScriptletRules(waivers=(Waiver("s6", ScriptletName.POST, "why not"),))
    assert rules.waivers[0].place.startswith("demo.yaml:")
    assert rules.waivers[0].place.endswith("scriptlets.waive[0]")


def test_included_waivers_stay_and_the_upper_mode_wins(tmp_path: Path) -> None:
    write(tmp_path, BASE, "base.yaml")
    top = 'name: top\nversion: "1"\ninclude: [base.yaml]\n'
    more = "scriptlets: {waive: [{package: x, script: pre, reason: y}]}\n"
    assert [one.package for one in load_recipe(write(tmp_path, top + more)).scriptlets.waivers] == ["s6", "x"]
    assert load_recipe(write(tmp_path, top + more)).scriptlets.mode is ScriptletMode.RPM
    assert load_recipe(write(tmp_path, top + "scriptlets: strict\n")).scriptlets.mode is ScriptletMode.STRICT


@pytest.mark.parametrize(
    ("said", "code", "says"),
    [
        ("scriptlets: lenient\n", "value-unknown", "'lenient' is not a rule"),
        ("scriptlets: [rpm]\n", "type-wrong", "mapping"),
        ("scriptlets: {waive: [{package: s6, script: postin, reason: x}]}\n", "value-unknown", "'postin'"),
        ("scriptlets: {waive: [{package: s6, script: post}]}\n", "key-missing", "reason"),
        ("scriptlets: {waive: [{package: s6, script: post, reason: ' '}]}\n", "type-wrong", "one line"),
        ("scriptlets: {waive: [{package: 's6 > 2', script: post, reason: x}]}\n", "waiver-malformed", "'s6 > 2'"),
        (
            "scriptlets: {waive: [{package: a, script: pre, reason: x}, {package: a, script: pre, reason: y}]}\n",
            "waiver-duplicate",
            "%pre of a, first at demo.yaml",
        ),
    ],
)
def test_what_is_no_rule_is_refused(tmp_path: Path, said: str, code: str, says: str) -> None:
    problem = only_problem(tmp_path, said)
    assert problem.code == code and says in problem.message
