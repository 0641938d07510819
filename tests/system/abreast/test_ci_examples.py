"""The shell in ci/examples, taken out of the files and run, in order, with real recipes, in clones as CI makes them.

What is not run here: GitHub's actions, GitLab's runner, Jenkins, a booted systemd. A program records what `gh` is told.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ci_files import (
    UNITS,
    WORKFLOWS,
    Step,
    gitlab_job,
    gitlab_step,
    jenkins_steps,
    service_step,
    unit_lines,
    workflow_steps,
)
from tests.support.ci_machine import (
    BIN,
    RECIPE,
    CiMachine,
    cases,
    ci_machine,
    commit_project,
    git_in,
    github,
    github_locks,
    github_night,
    nowhere,
)
from tests.support.gitserver import git_server
from tests.support.product_builds import small_products
from tests.support.rpm_factory import Forge
from tests.support.sampling import drawn
from tests.support.sites import PASSWORD
from tests.support.tiny_root import require_root

pytestmark = pytest.mark.long


# --- run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of small packages, with the platform that names it."""
    require_root()
    return small_products(tmp_path_factory.mktemp("packages") / "it", made).folder


@pytest.fixture(scope="module")
def project(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project as it stands, with a catalogue of two products, committed to a bare repository."""
    return commit_project(tmp_path_factory.mktemp("project"), packages)


@pytest.fixture
def machine(project: Path, tmp_path: Path) -> CiMachine:
    """A CI machine with the project on a server of its own."""
    return ci_machine(tmp_path, project)


# GitHub


def test_a_night_on_github(machine: CiMachine) -> None:
    done = github_night(machine, "one")
    assert [one.returncode for one in done] == [0] * 5, done[-2].stdout
    results = machine.folder / "one" / "results"
    assert machine.published() == {"alpha", "beta"}
    assert all(bad == [] for bad in cases(results / "junit.xml").values()) and cases(results / "junit.xml")
    summary = (machine.folder / "summary").read_text()
    assert summary == (results / "summary.md").read_text() and "alpha" in summary and "beta" in summary
    assert (results / "site" / "nightly.json").is_file()
    secrets = (machine.key.splitlines()[1], PASSWORD, "bm9ib2R5OnNlY3JldC13b3Jk", "store-secret-" * 4)
    nowhere(secrets, machine.folder / "one", machine.home)

    pushed = github_locks(machine, "two", results)
    assert [one.returncode for one in pushed] == [0, 0], pushed[-1].stdout
    assert machine.locks() == {"catalogue/alpha.lock": "A", "catalogue/beta.lock": "A"}
    told = (machine.folder / "gh").read_text().splitlines()
    assert told[:2] == ["pr", "list"] and told[told.index("create") - 1] == "pr"
    assert told[told.index("--head", 5) + 1] == "relbuild/locks" and told[told.index("--base") + 1] == "main"

    # The next night changes nothing, sends nothing, and has nothing to push that is not there.
    before = git_in(machine.origin, "rev-parse", "relbuild/locks")
    again = github_night(machine, "three")
    assert [one.returncode for one in again] == [0] * 5
    assert "2 unchanged" in again[3].stdout and " 0 B uploaded" in again[3].stdout, again[3].stdout
    (pushed_again,) = github_locks(machine, "four", machine.folder / "three" / "results")
    assert pushed_again.returncode == 0 and git_in(machine.origin, "rev-parse", "relbuild/locks") == before
    assert "has them already" in pushed_again.stdout


def test_a_night_in_which_one_fails_says_so_and_keeps_the_others(machine: CiMachine) -> None:
    machine.push("main", {"catalogue/beta.yaml": RECIPE.format(name="beta", version="2", expected="another")})
    done = github_night(machine, "one")
    assert [one.returncode for one in done] == [0, 0, 0, 1, 0], "the summary is written all the same"
    assert "1: something failed" in done[3].stdout
    results = machine.folder / "one" / "results"
    assert machine.published() == {"alpha"}
    found = cases(results / "junit.xml")
    assert {name.split()[0].partition(".")[0] for name, bad in found.items() if bad} == {"beta"}, found
    assert "beta" in (machine.folder / "summary").read_text()
    assert github_locks(machine, "two", results)[0].returncode == 0
    assert machine.locks() == {"catalogue/alpha.lock": "A"}


def github_check(
    machine: CiMachine, branch: str, base: str = "main"
) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """The check of a pull request."""
    at = machine.clone(f"check-{branch}", branch)
    git_in(at, "fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*")
    steps = workflow_steps(WORKFLOWS[1], "check", {})
    return at, machine.all(steps, at, **github(machine, at, GITHUB_BASE_REF=base))


def test_a_pull_request_is_built_tested_and_published_nowhere(machine: CiMachine) -> None:
    machine.push("change", {"catalogue/alpha.yaml": RECIPE.format(name="alpha", version="2", expected="2")})
    at, done = github_check(machine, "change")
    assert [one.returncode for one in done] == [0] * 3, done[-1].stdout
    plan = json.loads((at / "results" / "plan.json").read_text())["plan"]
    assert [(one["product"], one["action"]) for one in plan] == [("alpha", "build")]
    assert {path.name for path in (at / "results" / "output").iterdir()} == {"alpha", "alpha.report"}
    assert "all digests, sizes and diff_ids match" in done[-1].stdout and machine.published() == set()


UNTESTED = pytest.param("2", "another", "alpha", 6, id="its tests fail")
UNREADABLE = (
    pytest.param("{{ nothing }}", "2", "alpha", 3, id="its version is wrong"),
    pytest.param("2", "2", "Not A Name", 3, id="its name is wrong"),
)
"""Refused by one code: one of them is drawn."""


@pytest.mark.parametrize(
    ("version", "expected", "name", "status"), [UNTESTED, *drawn("a bad pull request", UNREADABLE, 1)]
)
def test_a_bad_pull_request_fails_with_the_exit_code_that_says_why(
    machine: CiMachine, version: str, expected: str, name: str, status: int
) -> None:
    machine.push("change", {"catalogue/alpha.yaml": RECIPE.format(name=name, version=version, expected=expected)})
    _, done = github_check(machine, "change")
    assert done[-1].returncode == status, done[-1].stdout


def test_names_in_a_pull_request_are_never_shell(machine: CiMachine) -> None:
    evil = "$(touch pwned);`touch pwned`;\n touch pwned #"
    recipe = RECIPE.format(name="gamma", version="1", expected="1")
    machine.push("change", {f"catalogue/{evil}.yaml": recipe})
    at, done = github_check(machine, "change")
    assert done[-1].returncode == 0, done[-1].stdout
    assert (at / "results" / "output" / "gamma").is_dir()
    _, wrong = github_check(replace(machine, folder=machine.folder / "other"), "change", base="main;touch pwned")
    assert wrong[-1].returncode == 2 and "revision-unknown" in wrong[-1].stdout
    assert not list(machine.folder.rglob("pwned"))


# GitLab


def test_a_night_and_a_check_on_gitlab(machine: CiMachine) -> None:
    at = machine.clone("builds")
    given = {
        "CI_PROJECT_DIR": str(at),
        "CI_SERVER_URL": machine.folder.as_uri(),
        "CI_PROJECT_PATH": "origin",
        "CI_DEFAULT_BRANCH": "main",
        "CI_PIPELINE_SOURCE": "schedule",
    }
    (at / ".cache" / "relbuild").mkdir(parents=True)
    (at / ".cache" / "relbuild" / "venv").symlink_to(BIN.parents[1])
    secrets = {
        "RELBUILD_TO": f"dir:{machine.mirror}",
        "RELBUILD_KEY_FILE": str(machine.folder / "release.key"),
        "RELBUILD_KEY_PASSWORD": PASSWORD,
    }
    night = machine.run(gitlab_step("nightly", given), at, **given, **secrets)
    assert night.returncode == 0, night.stdout
    assert machine.published() == {"alpha", "beta"} and cases(at / "results" / "junit.xml")
    for path in gitlab_job("nightly")["artifacts"]["paths"]:
        assert list(at.glob(path)), path
    for path in gitlab_job("nightly")["cache"]["paths"]:
        assert (at / path).is_dir() and any((at / path).iterdir()), path
    nowhere((PASSWORD,), at)

    # `locks` runs in the same folder, cleaned and checked out anew, with the artefacts of `nightly`.
    fresh = machine.clone("builds-2")
    shutil.copytree(at / "results", fresh / "results")
    given["CI_PROJECT_DIR"] = str(fresh)
    locks = machine.run(gitlab_step("locks", given), fresh, **given, RELBUILD_PUSH_TOKEN="of-a-test")
    assert locks.returncode == 0, locks.stdout
    assert machine.locks() == {"catalogue/alpha.lock": "A", "catalogue/beta.lock": "A"}
    assert "of-a-test" not in locks.stdout

    machine.push("change", {"catalogue/beta.yaml": RECIPE.format(name="beta", version="3", expected="3")})
    merge = machine.clone("builds-3", "change")
    given |= {"CI_PROJECT_DIR": str(merge), "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    (merge / ".cache" / "relbuild").mkdir(parents=True)
    (merge / ".cache" / "relbuild" / "venv").symlink_to(BIN.parents[1])
    check = machine.run(gitlab_step("check", given), merge, **given)
    assert check.returncode == 0, check.stdout
    assert [one["product"] for one in json.loads((merge / "results" / "plan.json").read_text())["plan"]] == ["beta"]
    (report,) = merge.glob(gitlab_job("check")["artifacts"]["reports"]["junit"])
    assert all(bad == [] for bad in cases(report).values())


# Jenkins


def test_a_night_and_a_check_on_jenkins(machine: CiMachine) -> None:
    at = machine.clone("workspace")
    given = {"WORKSPACE": str(at), "BRANCH_NAME": "main"}
    cache = Path(f"{at}@cache") / "relbuild"
    cache.mkdir(parents=True)
    (cache / "venv").symlink_to(BIN.parents[1])
    credentials = {"RELBUILD_KEY_FILE": str(machine.folder / "release.key"), "RELBUILD_KEY_PASSWORD": PASSWORD}
    night = [
        replace(step, environment={**step.environment, "RELBUILD_TO": f"dir:{machine.mirror}"})
        for step in (*jenkins_steps("Set up", given), *jenkins_steps("Night", given))
    ]
    assert [step.environment["XDG_CACHE_HOME"] for step in night] == [str(cache.parent)] * 3
    done = machine.all(night, at, **given, **credentials)
    assert [one.returncode for one in done] == [0, 0, 0], done[-1].stdout
    assert machine.published() == {"alpha", "beta"} and cases(at / "results" / "junit.xml")
    assert machine.locks() == {"catalogue/alpha.lock": "A", "catalogue/beta.lock": "A"}

    machine.push("change", {"catalogue/alpha.yaml": RECIPE.format(name="alpha", version="2", expected="2")})
    merge = machine.clone("workspace-2", "change")
    (check,) = jenkins_steps("Check", {"WORKSPACE": str(at)})
    told = machine.run(check, merge, **given, CHANGE_TARGET="main")
    assert told.returncode == 0, told.stdout
    assert [one["product"] for one in json.loads((merge / "results" / "plan.json").read_text())["plan"]] == ["alpha"]


# systemd


def test_what_the_service_starts(machine: CiMachine) -> None:
    at = machine.clone("srv")
    credentials = machine.folder / "credentials"
    credentials.mkdir()
    loaded = [value for key, value in unit_lines("relbuild-nightly.service") if key == "LoadCredential"]
    for name, content in zip((one.partition(":")[0] for one in loaded), (machine.key, PASSWORD), strict=True):
        (credentials / name).write_text(content)
    variables = machine.folder / "nightly.env"
    text = (UNITS / "nightly.env").read_text().replace("dir:/srv/mirror", f"dir:{machine.mirror}")
    specifiers = {"C": str(machine.folder / "cache"), "S": str(machine.folder / "state"), "d": str(credentials)}
    (machine.folder / "cache" / "relbuild" / "relbuild").mkdir(parents=True)
    (machine.folder / "cache" / "relbuild" / "relbuild" / "venv").symlink_to(BIN.parents[1])

    # As it stands it builds committed locks, and there are none yet.
    variables.write_text(text)
    step = service_step(specifiers, variables)
    assert step.environment["HOME"] == "/root"
    step = replace(step, environment={**step.environment, "HOME": str(machine.home)})
    locked = machine.run(step, at)
    assert locked.returncode == 1 and "lock" in locked.stdout and machine.published() == set()

    variables.write_text(text.replace("RELBUILD_LOCKS=locked\n", ""))
    step = service_step(specifiers, variables)
    done = machine.run(replace(step, environment={**step.environment, "HOME": str(machine.home)}), at)
    assert done.returncode == 0, done.stdout
    assert machine.published() == {"alpha", "beta"}
    assert cases(machine.folder / "state" / "relbuild" / "results" / "junit.xml")


# The scripts by themselves


def test_a_token_reaches_the_server_and_nothing_else(machine: CiMachine) -> None:
    maker, at = machine.clone("maker"), machine.clone("at")
    _lock(maker)
    git_in(maker, "add", "--all")
    (at / "results").mkdir()
    (at / "results" / "locks.patch").write_text(git_in(maker, "diff", "--cached", "--binary"))
    git_in(machine.origin, "config", "http.receivepack", "true")
    step = Step("locks", ("bash", "-ex"), "GIT_TRACE=1 bash -x ci/examples/write-locks.sh")
    with git_server(machine.folder, ("oauth2", "of-a-test")) as url:
        options = {"RELBUILD_PUSH_URL": f"{url}/origin.git", "RELBUILD_PUSH_OPTIONS": "merge_request.create\na=b c\n"}
        refused = machine.run(step, at, **options, RELBUILD_PUSH_TOKEN="of-another")
        assert refused.returncode != 0 and machine.locks() is None
        done = machine.run(step, at, **options, RELBUILD_PUSH_TOKEN="of-a-test")
    assert done.returncode == 0, done.stdout
    assert machine.locks() == {"catalogue/alpha.lock": "A"}
    assert "--push-option merge_request.create --push-option 'a=b c'" in done.stdout
    nowhere(("of-a-test",), at)
    assert "RELBUILD_PUSH_TOKEN" in done.stdout and "of-a-test" not in done.stdout, "a trace names it"


def test_what_is_not_set_up_is_named(machine: CiMachine) -> None:
    at = machine.clone("one")
    step = Step("night", ("bash", "-e"), "bash ci/examples/nightly.sh")
    for variables, says in (
        ({}, "RELBUILD_TO is not set"),
        ({"RELBUILD_TO": f"dir:{machine.mirror}"}, "RELBUILD_KEY is not set"),
        ({"RELBUILD_TO": "dir:m", "RELBUILD_KEY": machine.key, "RELBUILD_LOCKS": "wirte"}, "RELBUILD_LOCKS is 'wirte'"),
    ):
        done = machine.run(step, at, **variables)
        assert (done.returncode, says in done.stdout) == (2, True), done.stdout
    secrets = {"RELBUILD_KEY": machine.key, "RELBUILD_KEY_PASSWORD_FILE": str(at / "password"), "RELBUILD_LOCKS": "no"}
    (at / "password").write_text(PASSWORD)
    traced = Step("night", ("bash", "-ex"), "bash -x ci/examples/nightly.sh")
    told = machine.run(traced, at, RELBUILD_TO="dir:m", RELBUILD_REGISTRY_AUTH='{"auths": "secret-word"}', **secrets)
    assert told.returncode == 2 and "printenv RELBUILD_KEY" in told.stdout
    assert not any(secret in told.stdout for secret in (machine.key.splitlines()[1], PASSWORD, "secret-word"))
    lacking = machine.run(step, at, RELBUILD_TO=f"dir:{machine.mirror}", RELBUILD_KEY=machine.key)
    assert lacking.returncode == 8 and "key-password-missing" in lacking.stdout, lacking.stdout
    assert machine.published() == set()


def _lock(work: Path) -> None:
    (work / "catalogue" / "alpha.lock").write_text("a lock\n")


def _another_file(work: Path) -> None:
    _lock(work)
    (work / "ci" / "examples" / "nightly.sh").write_text("echo mine\n")


def _symlink(work: Path) -> None:
    (work / "catalogue" / "alpha.lock").symlink_to("/etc/passwd")


def _executable(work: Path) -> None:
    _lock(work)
    (work / "catalogue" / "alpha.lock").chmod(0o755)


def _elsewhere(work: Path) -> None:
    (work / "other.lock").write_text("not below the recipes\n")


def _removed(work: Path) -> None:
    (work / "catalogue" / "beta.yaml").unlink()


@pytest.mark.parametrize("change", [_another_file, _symlink, _executable, _elsewhere, _removed])
def test_a_patch_that_does_more_than_write_locks_is_refused(machine: CiMachine, change: Callable[[Path], None]) -> None:
    maker, at = machine.clone("maker"), machine.clone("at")
    change(maker)
    git_in(maker, "add", "--all")
    (at / "results").mkdir()
    (at / "results" / "locks.patch").write_text(git_in(maker, "diff", "--cached", "--binary"))
    done = machine.run(Step("locks", ("bash", "-e"), "bash ci/examples/write-locks.sh"), at)
    assert done.returncode == 5 and "refused" in done.stdout, done.stdout
    assert machine.locks() is None and git_in(at, "worktree", "list").count("\n") == 1


def test_locks_are_written_beside_what_is_checked_out(machine: CiMachine) -> None:
    """Changes in the clone, by whoever, are neither committed nor lost, and a new night replaces the branch."""
    maker, at = machine.clone("maker"), machine.clone("at")
    (at / "results").mkdir()
    (at / "README.md").write_text("mine\n")
    for text in ("one\n", "two\n"):
        (maker / "catalogue" / "a b.lock").write_text(text)
        git_in(maker, "add", "--all")
        (at / "results" / "locks.patch").write_text(git_in(maker, "diff", "--cached", "--binary"))
        done = machine.run(Step("locks", ("bash", "-e"), "bash ci/examples/write-locks.sh"), at)
        assert done.returncode == 0, done.stdout
        assert machine.locks() == {"catalogue/a b.lock": "A"}
        assert git_in(machine.origin, "show", "relbuild/locks:catalogue/a b.lock") == text
        assert git_in(machine.origin, "rev-list", "--count", "main..relbuild/locks") == "1\n"
    assert (at / "README.md").read_text() == "mine\n" and git_in(at, "rev-parse", "HEAD") == git_in(
        maker, "rev-parse", "HEAD"
    )
