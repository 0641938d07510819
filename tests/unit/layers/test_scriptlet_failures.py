"""Scriptlets that fail: what is an error, what the recipe lets through, and what is said of either."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import BuildError, RelbuildError, SmokeError
from pipeline.layers import scripts
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
from pipeline.sandbox.rootfs import RootFs

STRICT = ScriptletRules()
RPM = ScriptletRules(ScriptletMode.RPM)
LABEL = "%post of a-1-1.noarch"
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

    def __init__(self, ended: CommandResult | RelbuildError, files: RootFs) -> None:
        self.ended = ended
        self.files = files
        self.architecture = ""
        self.timeout = 0.0

    def run(
        self, argv: Sequence[str], *, stdin: bytes, environment: Mapping[str, str], timeout: float
    ) -> CommandResult:
        self.timeout = timeout
        if isinstance(self.ended, RelbuildError):
            raise self.ended
        return self.ended


def ended(status: int, **facts: bool) -> CommandResult:
    return CommandResult(("/bin/sh",), status, b"said\n", b"", 0.1, **facts)


def run(
    outcome: CommandResult | RelbuildError, folder: Path, *, interpreter: str = "/bin/sh", label: str = LABEL
) -> ScriptletFailure | None:
    """Run a script in a session over `folder`, as the image, where its command ends as `outcome` says."""
    step = ScriptStep(label, ScriptletPhase.POST, "a-1-1.noarch", "a", (interpreter,), "exit 1", ("1",))
    handle = os.open(folder, os.O_PATH)
    try:
        return run_script(step, FakeSession(outcome, RootFs(handle, 0)), folder, 5)  # type: ignore[arg-type]
    finally:
        os.close(handle)


def test_a_program_of_another_architecture_fails_its_script(tmp_path: Path) -> None:
    failed = run(SmokeError("program-foreign", "the program '/bin/sh' is for amd64"), tmp_path)
    assert failed is not None and (failed.code, failed.bound) == ("program-foreign", False)
    assert failed.message == f"{LABEL}: the program '/bin/sh' is for amd64"


def test_an_emulated_script_may_take_as_much_longer_as_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "emulation_slowdown", lambda name: {"arm64": 10, "amd64": 1}[name])
    step = ScriptStep(LABEL, ScriptletPhase.POST, "a-1-1.noarch", "a", ("/bin/sh",), "exit 1", ("1",))
    seconds = []
    for architecture in ("arm64", "amd64", ""):
        session: Any = FakeSession(ended(0), SimpleNamespace())  # type: ignore[arg-type]
        session.architecture = architecture
        run_script(step, session, tmp_path, 5)
        seconds.append(session.timeout)
    assert seconds == [10 * scripts.SCRIPT_SECONDS, scripts.SCRIPT_SECONDS, scripts.SCRIPT_SECONDS]


def test_how_a_script_ended_is_told_with_what_it_said(tmp_path: Path) -> None:
    assert run(ended(0), tmp_path) is None
    failed = run(ended(3), tmp_path)
    assert failed == ScriptletFailure(
        "a-1-1.noarch",
        "a",
        ScriptletName.POST,
        "scriptlet-failed",
        "%post of a-1-1.noarch ended with status 3: said",
        status=3,
    )
    assert judge_failure(failed, RPM).outcome == "scriptlet-failed: status 3"
    late = run(ended(137, timed_out=True), tmp_path)
    assert late is not None and (late.code, late.bound, late.status) == ("scriptlet-timed-out", True, None)
    greedy = run(ended(137, out_of_memory=True), tmp_path)
    assert greedy is not None and (greedy.code, greedy.bound) == ("scriptlet-failed", True)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (ended(0, out_of_memory=True), "exceeded the sandbox's memory limit"),
        (ended(1, out_of_memory=True), "exceeded the sandbox's memory limit"),
        (ended(2, pids_refused=True), "ended with status 2, and exceeded the sandbox's limit on processes: said"),
        (ended(128 + signal.SIGXFSZ), "exceeded the sandbox's limit on the size of a file: said"),
    ],
)
def test_a_limit_that_a_script_met_is_no_warning_of_rpms_whatever_its_status(
    outcome: CommandResult, said: str, tmp_path: Path
) -> None:
    failed = run(outcome, tmp_path)
    assert failed is not None and failed.bound and said in failed.message
    with pytest.raises(BuildError, match="sandbox's"):
        judge_failure(failed, RPM)


def test_a_script_that_does_with_fewer_processes_succeeded(tmp_path: Path) -> None:
    assert run(ended(0, pids_refused=True), tmp_path) is None


def unstarted(program: str) -> BuildError:
    """The error of a runtime that could not start a command, for whatever reason."""
    return BuildError("command-not-started", f"cannot start '{program}': crun failed", hint="`relbuild doctor`")


def test_an_interpreter_that_the_image_lacks_is_the_packages_failure(tmp_path: Path) -> None:
    lacking = run(unstarted("/bin/csh"), tmp_path, interpreter="/bin/csh")
    assert lacking is not None and (lacking.code, lacking.bound) == ("command-not-started", False)
    assert lacking.message.startswith("%post of a-1-1.noarch: cannot start '/bin/csh'")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/wrapped").write_text("#! /bin/absent -e\n")
    wrapped = run(unstarted("/bin/wrapped"), tmp_path, interpreter="/bin/wrapped")
    assert wrapped is not None and wrapped.code == "command-not-started"


@pytest.mark.parametrize("interpreter", ["/bin/sh", "/bin/program", "/bin/script", "/bin/link", "<lua>", "sh"])
def test_a_machine_that_cannot_start_a_script_is_no_failure_of_the_packages(interpreter: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").write_bytes(b"\x7fELF")
    (tmp_path / "bin/program").write_bytes(b"\x7fELF" + bytes(2 << 20))
    (tmp_path / "bin/script").write_text("#!/bin/sh -e\n")
    (tmp_path / "bin/link").symlink_to("/bin/sh")
    error = unstarted(interpreter)
    with pytest.raises(BuildError, match="crun failed") as caught:
        run(error, tmp_path, interpreter=interpreter)
    assert caught.value is error, "with its hint"


def test_a_label_that_is_no_utf8_is_shown_escaped(tmp_path: Path) -> None:
    failed = run(ended(3), tmp_path, label="%post of a\udcff")
    assert failed is not None and failed.message == r"%post of a\udcff ended with status 3: said"


def test_nothing_goes_on_when_the_disk_is_full_or_the_sandbox_fails(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="disk limit"):
        run(ended(1, out_of_disk=True), tmp_path)
    with pytest.raises(BuildError, match="disk limit"):
        run(ended(0, out_of_disk=True), tmp_path)
    with pytest.raises(BuildError, match="broken"):
        run(BuildError("bind-elsewhere", "broken"), tmp_path)


def test_the_names_of_scripts_are_those_of_phases_and_triggers() -> None:
    assert {str(name) for name in ScriptletName} == {str(kind) for kind in (*ScriptletPhase, *TriggerKind)}
