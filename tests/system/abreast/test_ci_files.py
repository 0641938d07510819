"""The files in ci/examples, held against what their makers check them with, and what must never be in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ci_files import (
    JENKINSFILE,
    PIPELINE,
    SCRIPTS,
    UNITS,
    WORKFLOWS,
    gitlab_job,
    gitlab_step,
    groovy,
    jenkins_calls,
    jenkins_steps,
    jenkins_tree,
    text_of,
    unit_lines,
    workflow,
    workflow_steps,
)
from tests.system.conftest import ROOT

BIN = Path(sys.executable).parent

# --- as their makers check them --------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_what_githubs_schema_says(path: Path) -> None:
    subprocess.run([BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", path], check=True)


def test_the_pipeline_is_what_gitlabs_schema_says() -> None:
    argv = [BIN / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", PIPELINE]
    subprocess.run(argv, check=True)


def test_the_schemas_find_what_is_wrong(tmp_path: Path) -> None:
    for path, schema, good, bad in (
        (WORKFLOWS[0], "vendor.github-workflows", "timeout-minutes: 240", "timeout-minuets: 240"),
        (PIPELINE, "vendor.gitlab-ci", "resource_group: relbuild-nightly", "resource_group: [1]"),
    ):
        spoilt = tmp_path / path.name
        spoilt.write_text(path.read_text().replace(good, bad))
        argv = [BIN / "check-jsonschema", "--builtin-schema", schema, spoilt]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == 1, path


def test_units_are_what_systemd_says(tmp_path: Path) -> None:
    for name in ("relbuild-nightly.service", "relbuild-nightly.timer"):
        shutil.copy(UNITS / name, tmp_path)
    argv = ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    (when,) = [value for key, value in unit_lines("relbuild-nightly.timer") if key == "OnCalendar"]
    subprocess.run(["systemd-analyze", "calendar", when], check=True, capture_output=True)
    argv = ["systemd-tmpfiles", "--create", "--dry-run", UNITS / "relbuild.tmpfiles.conf"]
    known = subprocess.run(["systemd-tmpfiles", "--help"], capture_output=True, text=True, check=True).stdout
    if "--dry-run" not in known:  # before systemd 256: made below a folder, and looked at
        argv = ["systemd-tmpfiles", "--create", f"--root={tmp_path / 'root'}", UNITS / "relbuild.tmpfiles.conf"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stderr == ""


def test_the_jenkinsfile_is_groovy() -> None:
    tree = jenkins_tree()
    assert not tree.has_error and list(jenkins_calls(tree, "pipeline"))
    assert groovy(JENKINSFILE.read_bytes().replace(b"stage('Night') {", b"stage('Night' {")).has_error


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    steps = [
        *(step for path, job in JOBS for step in workflow_steps(path, job, _Known())),
        *(gitlab_step(job, _Known()) for job in ("check", "nightly", "locks")),
        *(step for stage in STAGES for step in jenkins_steps(stage, _Known())),
    ]
    files = list(SCRIPTS)
    for number, step in enumerate(steps):
        shell = "sh" if step.shell[0] == "sh" else "bash"
        files.append(tmp_path / f"{number}.sh")
        files[-1].write_text(f"#!/usr/bin/env {shell}\n{step.script}\n")
    assert len(files) > len(SCRIPTS) + 12
    done = subprocess.run(
        [BIN / "shellcheck", "--external-sources", *files], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


JOBS = ((WORKFLOWS[0], "nightly"), (WORKFLOWS[0], "locks"), (WORKFLOWS[1], "check"))
STAGES = ("Set up", "Check", "Night")


class _Known(dict[str, str]):
    """What every expression comes to where only the shell matters."""

    def __missing__(self, name: str) -> str:
        return "x"


# --- what must never be in them --------------------------------------------------------------------------


def test_nothing_that_others_write_is_put_into_a_shell() -> None:
    for path, job in JOBS:
        for step in workflow_steps(path, job, _Known()):
            assert "${{" not in step.script, f"{path.name}: {step.name}"
    for call in jenkins_calls(jenkins_tree(), "sh"):
        literal = text_of(call.children[1])
        assert literal.startswith("'") and '"""' not in literal, literal


def test_workflows_may_do_the_least_and_pin_what_they_use() -> None:
    writing = set()
    for path in WORKFLOWS:
        value = workflow(path)
        assert value["permissions"] == {} and "pull_request_target" not in value[True]
        for name, job in value["jobs"].items():
            assert 0 < job["timeout-minutes"] <= 240
            writing |= {(name, what) for what, how in job["permissions"].items() if how == "write"}
            signing = "secrets." in json.dumps(job)
            assert signing == (name == "nightly") and not (signing and "write" in job["permissions"].values())
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"actions/[a-z-]+(/[a-z]+)?@[0-9a-f]{40}", step["uses"]), step["uses"]
        pins = re.findall(r"uses: (\S+)(.*)", path.read_text())
        assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", tag) for _, tag in pins), "the tag stands beside the commit"
    assert writing == {("locks", "contents"), ("locks", "pull-requests")}


def test_two_nights_never_overlap_and_none_is_cut_off() -> None:
    night = workflow(WORKFLOWS[0])
    assert night["concurrency"] == {"group": "relbuild-nightly", "cancel-in-progress": False}
    job = gitlab_job("nightly")
    assert (job["resource_group"], job["interruptible"]) == ("relbuild-nightly", False)
    assert list(jenkins_calls(jenkins_tree(), "disableConcurrentBuilds"))
    assert ("Type", "oneshot") in unit_lines("relbuild-nightly.service")


def test_the_stores_key_is_not_cached() -> None:
    cached = [
        line
        for path in WORKFLOWS
        for step in (step for job in workflow(path)["jobs"].values() for step in job["steps"])
        if "cache" in step.get("uses", "")
        for line in step["with"]["path"].split()
    ]
    assert cached and {path.rpartition("/")[2] for path in (*cached, *gitlab_job("nightly")["cache"]["paths"])} == {
        "blobs",
        "results",
        "metadata",
        "site",
    }


def test_every_variable_is_documented() -> None:
    told = (ROOT / "docs" / "ci.md").read_text()
    used = {name for path in SCRIPTS for name in re.findall(r"\bRELBUILD_[A-Z_]+", path.read_text())}
    assert used and {name for name in used if f"`{name}`" not in told} == set()
    for status in range(10):
        assert f"| {status} |" in told


def test_no_shell_in_the_jenkinsfile_is_left_out() -> None:
    """Every `sh` of the file is one of those that are run here."""
    assert len([one for stage in STAGES for one in jenkins_steps(stage, _Known())]) == len(
        list(jenkins_calls(jenkins_tree(), "sh"))
    )
