"""Scriptlets that fail: what is an error, what the recipe lets through, and what is said of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.layers.scriptlet_failures import judge_failure, unused_waivers
from pipeline.layers.scripts import run_script
from pipeline.layers.transaction import ScriptStep
from pipeline.model.header import ScriptletPhase, TriggerKind
from pipeline.model.scriptlets import (
    ScriptletFailure,
    ScriptletMode,
    ScriptletName,
    ScriptletRules,
    ToleratedFailure,
    Waiver,
)
from pipeline.sandbox.build_container import CommandResult

STRICT = ScriptletRules()
RPM = ScriptletRules(ScriptletMode.RPM)
STOPS_RPM = {ScriptletName.PRETRANS, ScriptletName.PRE}


def failure(script: ScriptletName, *, bound: bool = False, code: str = "scriptlet-failed") -> ScriptletFailure:
    message = f"%{script} of s6-2-1.x86_64 ended with status 111: supervisor not listening"
    return ScriptletFailure("s6-2-1.x86_64", "s6", script, code, message, bound)


@pytest.mark.parametrize("script", ScriptletName)
def test_every_scriptlet_must_succeed_unless_the_recipe_says_otherwise(script: ScriptletName) -> None:
    with pytest.raises(BuildError) as caught:
        judge_failure(failure(script), STRICT)
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("scriptlet-failed", "s6-2-1.x86_64")
    assert f"scriptlets: {{waive: [{{package: s6, script: {script}, reason: …}}]}}" in problem.hint
    assert ("`scriptlets: rpm`" in problem.hint) is (script not in STOPS_RPM)


@pytest.mark.parametrize("script", ScriptletName)
def test_what_only_warns_under_rpm_is_let_through_by_its_rule(script: ScriptletName) -> None:
    if script in STOPS_RPM:
        with pytest.raises(BuildError, match="ended with status 111") as caught:
            judge_failure(failure(script), RPM)
        assert f"a failing %{script} stops rpm too" in caught.value.problems[0].hint
        return
    let_through = judge_failure(failure(script), RPM)
    assert let_through == ToleratedFailure("s6-2-1.x86_64", script, failure(script).message)
    assert let_through.sentence.endswith("supervisor not listening (scriptlets: rpm)")


@pytest.mark.parametrize("script", [ScriptletName.POST, ScriptletName.PRE])
@pytest.mark.parametrize("mode", ScriptletMode)
def test_a_waiver_lets_one_script_of_one_package_fail_with_its_reason(
    script: ScriptletName, mode: ScriptletMode
) -> None:
    rules = ScriptletRules(mode, (Waiver("s6", script, "nobody listens"),))
    assert judge_failure(failure(script, bound=True), rules).reason == "nobody listens"
    assert "(waived: nobody listens)" in judge_failure(failure(script), rules).sentence
    others = (Waiver("s6", ScriptletName.TRIGGERIN, "x"), Waiver("s6-2", script, "x"), Waiver("s7", script, "x"))
    with pytest.raises(BuildError):
        judge_failure(failure(script), ScriptletRules(ScriptletMode.STRICT, others))


def test_what_a_limit_of_relbuild_ended_is_no_warning_of_rpms() -> None:
    with pytest.raises(BuildError) as caught:
        judge_failure(failure(ScriptletName.POST, bound=True, code="scriptlet-timed-out"), RPM)
    assert caught.value.code == "scriptlet-timed-out"
    assert "limit" in caught.value.problems[0].hint and "waive" in caught.value.problems[0].hint


def test_a_waiver_that_matches_nothing_any_more_is_a_warning() -> None:
    waivers = (
        Waiver("s6", ScriptletName.POST, "x", "a.yaml:3: scriptlets.waive[0]"),
        Waiver("s6", ScriptletName.PRE, "x"),
    )
    (warning,) = unused_waivers(waivers, [failure(ScriptletName.PRE)])
    assert warning == "a.yaml:3: scriptlets.waive[0]: the waiver of %post of s6 matches no failure: remove it"


class FakeSession:
    """A build session in which every command ends as it was told to."""

    def __init__(self, ended: CommandResult | BuildError) -> None:
        self.ended = ended

    def run(
        self, argv: Sequence[str], *, stdin: bytes, environment: Mapping[str, str], timeout: float
    ) -> CommandResult:
        if isinstance(self.ended, BuildError):
            raise self.ended
        return self.ended


def ended(status: int, **facts: bool) -> CommandResult:
    return CommandResult(("/bin/sh",), status, b"said\n", b"", 0.1, **facts)


def run(outcome: CommandResult | BuildError, folder: Path) -> ScriptletFailure | None:
    step = ScriptStep("%post of a-1-1.noarch", ScriptletPhase.POST, "a-1-1.noarch", "a", ("/bin/sh",), "exit 1", ("1",))
    return run_script(step, FakeSession(outcome), folder, 5)  # type: ignore[arg-type]


def test_how_a_script_ended_is_told_with_what_it_said(tmp_path: Path) -> None:
    assert run(ended(0), tmp_path) is None
    failed = run(ended(3), tmp_path)
    assert failed == ScriptletFailure(
        "a-1-1.noarch",
        "a",
        ScriptletName.POST,
        "scriptlet-failed",
        "%post of a-1-1.noarch ended with status 3: said",
    )
    late = run(ended(137, timed_out=True), tmp_path)
    assert late is not None and (late.code, late.bound) == ("scriptlet-timed-out", True)
    greedy = run(ended(137, out_of_memory=True), tmp_path)
    assert greedy is not None and (greedy.code, greedy.bound) == ("scriptlet-failed", True)
    lacking = run(BuildError("command-not-started", "cannot start '/bin/csh': no such file"), tmp_path)
    assert lacking is not None and (lacking.code, lacking.bound) == ("command-not-started", False)
    assert lacking.message.startswith("%post of a-1-1.noarch: cannot start '/bin/csh'")


def test_nothing_goes_on_when_the_disk_is_full_or_the_sandbox_fails(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="disk limit"):
        run(ended(1, out_of_disk=True), tmp_path)
    with pytest.raises(BuildError, match="broken"):
        run(BuildError("bind-elsewhere", "broken"), tmp_path)


def test_the_names_of_scripts_are_those_of_phases_and_triggers() -> None:
    assert {str(name) for name in ScriptletName} == {str(kind) for kind in (*ScriptletPhase, *TriggerKind)}
