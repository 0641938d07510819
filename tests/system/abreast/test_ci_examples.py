"""The shell in ci/examples, taken out of the files and run, in order, with real recipes, in clones as CI makes them.

What is not run here: GitHub's actions, GitLab's runner, Jenkins, a booted systemd. A program records what `gh` is told.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import ci_files
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
from tests.support.gitserver import git_server
from tests.support.product_builds import small_products
from tests.support.rpm_factory import Forge
from tests.support.sites import PASSWORD, relbuild
from tests.support.tiny_root import require_root
from tests.system.conftest import ROOT

pytestmark = pytest.mark.long

BIN = Path(sys.executable).parent

RECIPE = """
name: {name}
version: "{version}"
platform: small
layers:
  - {{name: base, packages: [small-base]}}
  - {{name: product, packages: [small]}}
files:
  - {{content: "{version}", path: /etc/version}}
image:
  entrypoint: [/usr/bin/busybox, sh, -c, "trap 'exit 0' TERM; echo up; while :; do sleep 1; done & wait"]
smoke:
  ready: {{log: up, within: 20s}}
  checks: [{{name: is what it says, file: {{path: /etc/version, text: "{expected}"}}}}]
"""

APT = """#!/bin/sh
# The packages have to exist; this machine is left as it is.
[ "$1" = update ] || exec /usr/bin/apt-get --simulate "$@"
"""

GH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >>"$GH_TOLD"
"""


# --- run -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A project with a catalogue, on a server (`origin`, a bare repository), and what a CI machine has: `home`, with
    the virtual environments that a cache would bring, and `bin` before everything else in PATH."""

    folder: Path
    origin: Path
    home: Path
    key: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def clone(self, name: str, branch: str = "main") -> Path:
        """A fresh clone."""
        target = self.folder / name
        argv = ["git", "clone", "--quiet", "--branch", branch, self.origin.as_uri(), target]
        subprocess.run(argv, check=True)
        return target

    def push(self, branch: str, files: Mapping[str, str]) -> None:
        """A commit with files, on a branch that begins at main."""
        work = self.clone(f"work-{branch}")
        _git(work, "checkout", "--quiet", "-B", branch)
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
        _git(work, "add", "--all")
        _git(work, "commit", "--quiet", "-m", "change")
        _git(work, "push", "--quiet", "--force", "origin", branch)

    def run(self, step: Step, at: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """A step, as a CI's runner would."""
        return ci_files.run(step, at, {**self.environment, "HOME": str(self.home), **more})

    def all(self, steps: list[Step], at: Path, **more: str) -> list[subprocess.CompletedProcess[str]]:
        """Steps in order, until one fails; those that are run `always()` are run all the same."""
        done: list[subprocess.CompletedProcess[str]] = []
        for step in steps:
            if step.condition == "always()" or all(one.returncode == 0 for one in done):
                assert step.condition in ("", "always()"), step
                done.append(self.run(step, at, **more))
        return done

    def locks(self) -> dict[str, str] | None:
        """What the branch with locks has other than main: path → how git shows the change; None: there is none."""
        if _git(self.origin, "branch", "--list", "relbuild/locks") == "":
            return None
        lines = _git(self.origin, "diff", "--name-status", "main", "relbuild/locks").splitlines()
        return {path: how for how, path in (line.split("\t") for line in lines)}

    @property
    def mirror(self) -> Path:
        return self.folder / "mirror"

    def published(self) -> set[str]:
        """The products on the mirror."""
        place = self.mirror / "repositories"
        return {path.name for path in place.iterdir() if (path / "_tags").is_dir()} if place.exists() else set()


def _git(at: Path, *words: str) -> str:
    argv = ["git", "-c", "user.name=Somebody", "-c", "user.email=s@example.invalid", "-C", at, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def packages(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of small packages, with the platform that names it."""
    require_root()
    return small_products(tmp_path_factory.mktemp("packages") / "it", made).folder


@pytest.fixture(scope="module")
def project(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project as it stands, with a catalogue of two products, committed to a bare repository."""
    folder = tmp_path_factory.mktemp("project")
    work = folder / "work"
    work.mkdir()
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in listed.split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, work / name)
    catalogue = work / "catalogue"
    catalogue.mkdir()
    shutil.copy(packages / "repositories.yaml", catalogue)
    for name in ("alpha", "beta"):
        (catalogue / f"{name}.yaml").write_text(RECIPE.format(name=name, version="1", expected="1"))
    _git(work, "init", "--quiet", "--initial-branch", "main")
    _git(work, "add", "--all")
    _git(work, "commit", "--quiet", "-m", "all")
    origin = folder / "origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", work, origin], check=True)
    return origin


@pytest.fixture
def place(project: Path, tmp_path: Path) -> Place:
    """A CI machine with the project on a server of its own."""
    origin = tmp_path / "origin.git"
    shutil.copytree(project, origin)
    _git(origin, "config", "receive.advertisePushOptions", "true")
    home = tmp_path / "home"
    (home / ".cache" / "relbuild").mkdir(parents=True)
    (home / ".cache" / "relbuild" / "venv").symlink_to(BIN.parents[1])
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("apt-get", APT), ("gh", GH)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    done = relbuild(tmp_path, "keygen", "release")
    assert done.returncode == 0, done.stderr
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "RELBUILD_RECIPES": "catalogue",
        "GH_TOLD": str(tmp_path / "gh"),
        "CI": "true",
    }
    return Place(tmp_path, origin, home, (tmp_path / "release.key").read_text(), environment)


def cases(path: Path) -> dict[str, list[str]]:
    """Of a JUnit file: name of each case → what is in it (`failure`, …)."""
    root = ElementTree.parse(path).getroot()
    return {f"{case.get('classname')} {case.get('name')}": [one.tag for one in case] for case in root.iter("testcase")}


def nowhere(secrets: tuple[str, ...], *folders: Path) -> None:
    """None of some texts is in any file."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                assert not any(secret.encode() in data for secret in secrets), path


# GitHub


def github(place: Place, at: Path, **more: str) -> dict[str, str]:
    """What GitHub sets for a job in a clone, and where it reads what steps say."""
    place.folder.joinpath("summary").touch()
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(at),
        "GITHUB_STEP_SUMMARY": str(place.folder / "summary"),
        "GITHUB_OUTPUT": str(place.folder / "output"),
        "GITHUB_REF_NAME": "main",
        **more,
    }


def expressions(place: Place) -> dict[str, str]:
    """What a project's owner has set up."""
    return {
        "vars.RELBUILD_TO": f"dir:{place.mirror}",
        "secrets.RELBUILD_KEY": place.key.rstrip("\n"),
        "secrets.RELBUILD_KEY_PASSWORD": PASSWORD,
        "secrets.RELBUILD_STORE_KEY": "store-secret-" * 4,
        "secrets.RELBUILD_REGISTRY_AUTH": '{"auths": {"registry.example.com": {"auth": "bm9ib2R5OnNlY3JldC13b3Jk"}}}',
        "github.token": "of-a-test",
    }


def github_night(place: Place, name: str) -> list[subprocess.CompletedProcess[str]]:
    """The job `nightly` in a clone of that name."""
    at = place.clone(name)
    steps = workflow_steps(WORKFLOWS[0], "nightly", expressions(place))
    return place.all(steps, at, **github(place, at))


def github_locks(place: Place, name: str, results: Path) -> list[subprocess.CompletedProcess[str]]:
    """The job `locks` in a clone of that name, with what the other job left."""
    at = place.clone(name)
    shutil.copytree(results, at / "results")
    (place.folder / "output").write_text("")
    push, request = workflow_steps(WORKFLOWS[0], "locks", expressions(place))
    environment = github(place, at)
    done = [place.run(push, at, **environment)]
    assert (push.id, request.condition) == ("locks", "steps.locks.outputs.pushed == 'true'")
    if "pushed=true" in (place.folder / "output").read_text().splitlines():
        done.append(place.run(request, at, **environment))
    return done


def test_a_night_on_github(place: Place) -> None:
    done = github_night(place, "one")
    assert [one.returncode for one in done] == [0] * 5, done[-2].stdout
    results = place.folder / "one" / "results"
    assert place.published() == {"alpha", "beta"}
    assert all(bad == [] for bad in cases(results / "junit.xml").values()) and cases(results / "junit.xml")
    summary = (place.folder / "summary").read_text()
    assert summary == (results / "summary.md").read_text() and "alpha" in summary and "beta" in summary
    assert (results / "site" / "nightly.json").is_file()
    secrets = (place.key.splitlines()[1], PASSWORD, "bm9ib2R5OnNlY3JldC13b3Jk", "store-secret-" * 4)
    nowhere(secrets, place.folder / "one", place.home)

    pushed = github_locks(place, "two", results)
    assert [one.returncode for one in pushed] == [0, 0], pushed[-1].stdout
    assert place.locks() == {"catalogue/alpha.lock": "A", "catalogue/beta.lock": "A"}
    told = (place.folder / "gh").read_text().splitlines()
    assert told[:2] == ["pr", "list"] and told[told.index("create") - 1] == "pr"
    assert told[told.index("--head", 5) + 1] == "relbuild/locks" and told[told.index("--base") + 1] == "main"

    # The next night changes nothing, sends nothing, and has nothing to push that is not there.
    before = _git(place.origin, "rev-parse", "relbuild/locks")
    again = github_night(place, "three")
    assert [one.returncode for one in again] == [0] * 5
    assert "2 unchanged" in again[3].stdout and " 0 B uploaded" in again[3].stdout, again[3].stdout
    (pushed_again,) = github_locks(place, "four", place.folder / "three" / "results")
    assert pushed_again.returncode == 0 and _git(place.origin, "rev-parse", "relbuild/locks") == before
    assert "has them already" in pushed_again.stdout


def test_a_night_in_which_one_fails_says_so_and_keeps_the_others(place: Place) -> None:
    place.push("main", {"catalogue/beta.yaml": RECIPE.format(name="beta", version="2", expected="another")})
    done = github_night(place, "one")
    assert [one.returncode for one in done] == [0, 0, 0, 1, 0], "the summary is written all the same"
    assert "1: something failed" in done[3].stdout
    results = place.folder / "one" / "results"
    assert place.published() == {"alpha"}
    found = cases(results / "junit.xml")
    assert {name.split()[0].partition(".")[0] for name, bad in found.items() if bad} == {"beta"}, found
    assert "beta" in (place.folder / "summary").read_text()
    assert github_locks(place, "two", results)[0].returncode == 0
    assert place.locks() == {"catalogue/alpha.lock": "A"}


def github_check(place: Place, branch: str, base: str = "main") -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """The check of a pull request."""
    at = place.clone(f"check-{branch}", branch)
    _git(at, "fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*")
    steps = workflow_steps(WORKFLOWS[1], "check", {})
    return at, place.all(steps, at, **github(place, at, GITHUB_BASE_REF=base))


def test_a_pull_request_is_built_tested_and_published_nowhere(place: Place) -> None:
    place.push("change", {"catalogue/alpha.yaml": RECIPE.format(name="alpha", version="2", expected="2")})
    at, done = github_check(place, "change")
    assert [one.returncode for one in done] == [0] * 3, done[-1].stdout
    plan = json.loads((at / "results" / "plan.json").read_text())["plan"]
    assert [(one["product"], one["action"]) for one in plan] == [("alpha", "build")]
    assert {path.name for path in (at / "results" / "output").iterdir()} == {"alpha", "alpha.report"}
    assert "all digests, sizes and diff_ids match" in done[-1].stdout and place.published() == set()


@pytest.mark.parametrize(
    ("version", "expected", "name", "status"),
    [("2", "another", "alpha", 6), ("{{ nothing }}", "2", "alpha", 3), ("2", "2", "Not A Name", 3)],
    ids=["its tests fail", "its version is wrong", "its name is wrong"],
)
def test_a_bad_pull_request_fails_with_the_exit_code_that_says_why(
    place: Place, version: str, expected: str, name: str, status: int
) -> None:
    place.push("change", {"catalogue/alpha.yaml": RECIPE.format(name=name, version=version, expected=expected)})
    _, done = github_check(place, "change")
    assert done[-1].returncode == status, done[-1].stdout


def test_names_in_a_pull_request_are_never_shell(place: Place) -> None:
    evil = "$(touch pwned);`touch pwned`;\n touch pwned #"
    recipe = RECIPE.format(name="gamma", version="1", expected="1")
    place.push("change", {f"catalogue/{evil}.yaml": recipe})
    at, done = github_check(place, "change")
    assert done[-1].returncode == 0, done[-1].stdout
    assert (at / "results" / "output" / "gamma").is_dir()
    _, wrong = github_check(replace(place, folder=place.folder / "other"), "change", base="main;touch pwned")
    assert wrong[-1].returncode == 2 and "revision-unknown" in wrong[-1].stdout
    assert not list(place.folder.rglob("pwned"))


# GitLab


def test_a_night_and_a_check_on_gitlab(place: Place) -> None:
    at = place.clone("builds")
    given = {
        "CI_PROJECT_DIR": str(at),
        "CI_SERVER_URL": place.folder.as_uri(),
        "CI_PROJECT_PATH": "origin",
        "CI_DEFAULT_BRANCH": "main",
        "CI_PIPELINE_SOURCE": "schedule",
    }
    (at / ".cache" / "relbuild").mkdir(parents=True)
    (at / ".cache" / "relbuild" / "venv").symlink_to(BIN.parents[1])
    secrets = {
        "RELBUILD_TO": f"dir:{place.mirror}",
        "RELBUILD_KEY_FILE": str(place.folder / "release.key"),
        "RELBUILD_KEY_PASSWORD": PASSWORD,
    }
    night = place.run(gitlab_step("nightly", given), at, **given, **secrets)
    assert night.returncode == 0, night.stdout
    assert place.published() == {"alpha", "beta"} and cases(at / "results" / "junit.xml")
    for path in gitlab_job("nightly")["artifacts"]["paths"]:
        assert list(at.glob(path)), path
    for path in gitlab_job("nightly")["cache"]["paths"]:
        assert (at / path).is_dir() and any((at / path).iterdir()), path
    nowhere((PASSWORD,), at)

    # `locks` runs in the same folder, cleaned and checked out anew, with the artefacts of `nightly`.
    fresh = place.clone("builds-2")
    shutil.copytree(at / "results", fresh / "results")
    given["CI_PROJECT_DIR"] = str(fresh)
    locks = place.run(gitlab_step("locks", given), fresh, **given, RELBUILD_PUSH_TOKEN="of-a-test")
    assert locks.returncode == 0, locks.stdout
    assert place.locks() == {"catalogue/alpha.lock": "A", "catalogue/beta.lock": "A"}
    assert "of-a-test" not in locks.stdout

    place.push("change", {"catalogue/beta.yaml": RECIPE.format(name="beta", version="3", expected="3")})
    merge = place.clone("builds-3", "change")
    given |= {"CI_PROJECT_DIR": str(merge), "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    (merge / ".cache" / "relbuild").mkdir(parents=True)
    (merge / ".cache" / "relbuild" / "venv").symlink_to(BIN.parents[1])
    check = place.run(gitlab_step("check", given), merge, **given)
    assert check.returncode == 0, check.stdout
    assert [one["product"] for one in json.loads((merge / "results" / "plan.json").read_text())["plan"]] == ["beta"]
    (report,) = merge.glob(gitlab_job("check")["artifacts"]["reports"]["junit"])
    assert all(bad == [] for bad in cases(report).values())


# Jenkins


def test_a_night_and_a_check_on_jenkins(place: Place) -> None:
    at = place.clone("workspace")
    given = {"WORKSPACE": str(at), "BRANCH_NAME": "main"}
    cache = Path(f"{at}@cache") / "relbuild"
    cache.mkdir(parents=True)
    (cache / "venv").symlink_to(BIN.parents[1])
    credentials = {"RELBUILD_KEY_FILE": str(place.folder / "release.key"), "RELBUILD_KEY_PASSWORD": PASSWORD}
    night = [
        replace(step, environment={**step.environment, "RELBUILD_TO": f"dir:{place.mirror}"})
        for step in (*jenkins_steps("Set up", given), *jenkins_steps("Night", given))
    ]
    assert [step.environment["XDG_CACHE_HOME"] for step in night] == [str(cache.parent)] * 3
    done = place.all(night, at, **given, **credentials)
    assert [one.returncode for one in done] == [0, 0, 0], done[-1].stdout
    assert place.published() == {"alpha", "beta"} and cases(at / "results" / "junit.xml")
    assert place.locks() == {"catalogue/alpha.lock": "A", "catalogue/beta.lock": "A"}

    place.push("change", {"catalogue/alpha.yaml": RECIPE.format(name="alpha", version="2", expected="2")})
    merge = place.clone("workspace-2", "change")
    (check,) = jenkins_steps("Check", {"WORKSPACE": str(at)})
    told = place.run(check, merge, **given, CHANGE_TARGET="main")
    assert told.returncode == 0, told.stdout
    assert [one["product"] for one in json.loads((merge / "results" / "plan.json").read_text())["plan"]] == ["alpha"]


# systemd


def test_what_the_service_starts(place: Place) -> None:
    at = place.clone("srv")
    credentials = place.folder / "credentials"
    credentials.mkdir()
    loaded = [value for key, value in unit_lines("relbuild-nightly.service") if key == "LoadCredential"]
    for name, content in zip((one.partition(":")[0] for one in loaded), (place.key, PASSWORD), strict=True):
        (credentials / name).write_text(content)
    variables = place.folder / "nightly.env"
    text = (UNITS / "nightly.env").read_text().replace("dir:/srv/mirror", f"dir:{place.mirror}")
    specifiers = {"C": str(place.folder / "cache"), "S": str(place.folder / "state"), "d": str(credentials)}
    (place.folder / "cache" / "relbuild" / "relbuild").mkdir(parents=True)
    (place.folder / "cache" / "relbuild" / "relbuild" / "venv").symlink_to(BIN.parents[1])

    # As it stands it builds committed locks, and there are none yet.
    variables.write_text(text)
    step = service_step(specifiers, variables)
    assert step.environment["HOME"] == "/root"
    step = replace(step, environment={**step.environment, "HOME": str(place.home)})
    locked = place.run(step, at)
    assert locked.returncode == 1 and "lock" in locked.stdout and place.published() == set()

    variables.write_text(text.replace("RELBUILD_LOCKS=locked\n", ""))
    step = service_step(specifiers, variables)
    done = place.run(replace(step, environment={**step.environment, "HOME": str(place.home)}), at)
    assert done.returncode == 0, done.stdout
    assert place.published() == {"alpha", "beta"}
    assert cases(place.folder / "state" / "relbuild" / "results" / "junit.xml")


# The scripts by themselves


def test_a_token_reaches_the_server_and_nothing_else(place: Place) -> None:
    maker, at = place.clone("maker"), place.clone("at")
    _lock(maker)
    _git(maker, "add", "--all")
    (at / "results").mkdir()
    (at / "results" / "locks.patch").write_text(_git(maker, "diff", "--cached", "--binary"))
    _git(place.origin, "config", "http.receivepack", "true")
    step = Step("locks", ("bash", "-ex"), "GIT_TRACE=1 bash -x ci/examples/write-locks.sh")
    with git_server(place.folder, ("oauth2", "of-a-test")) as url:
        options = {"RELBUILD_PUSH_URL": f"{url}/origin.git", "RELBUILD_PUSH_OPTIONS": "merge_request.create\na=b c\n"}
        refused = place.run(step, at, **options, RELBUILD_PUSH_TOKEN="of-another")
        assert refused.returncode != 0 and place.locks() is None
        done = place.run(step, at, **options, RELBUILD_PUSH_TOKEN="of-a-test")
    assert done.returncode == 0, done.stdout
    assert place.locks() == {"catalogue/alpha.lock": "A"}
    assert "--push-option merge_request.create --push-option 'a=b c'" in done.stdout
    nowhere(("of-a-test",), at)
    assert "RELBUILD_PUSH_TOKEN" in done.stdout and "of-a-test" not in done.stdout, "a trace names it"


def test_what_is_not_set_up_is_named(place: Place) -> None:
    at = place.clone("one")
    step = Step("night", ("bash", "-e"), "bash ci/examples/nightly.sh")
    for variables, says in (
        ({}, "RELBUILD_TO is not set"),
        ({"RELBUILD_TO": f"dir:{place.mirror}"}, "RELBUILD_KEY is not set"),
        ({"RELBUILD_TO": "dir:m", "RELBUILD_KEY": place.key, "RELBUILD_LOCKS": "wirte"}, "RELBUILD_LOCKS is 'wirte'"),
    ):
        done = place.run(step, at, **variables)
        assert (done.returncode, says in done.stdout) == (2, True), done.stdout
    secrets = {"RELBUILD_KEY": place.key, "RELBUILD_KEY_PASSWORD_FILE": str(at / "password"), "RELBUILD_LOCKS": "no"}
    (at / "password").write_text(PASSWORD)
    traced = Step("night", ("bash", "-ex"), "bash -x ci/examples/nightly.sh")
    told = place.run(traced, at, RELBUILD_TO="dir:m", RELBUILD_REGISTRY_AUTH='{"auths": "secret-word"}', **secrets)
    assert told.returncode == 2 and "printenv RELBUILD_KEY" in told.stdout
    assert not any(secret in told.stdout for secret in (place.key.splitlines()[1], PASSWORD, "secret-word"))
    lacking = place.run(step, at, RELBUILD_TO=f"dir:{place.mirror}", RELBUILD_KEY=place.key)
    assert lacking.returncode == 8 and "key-password-missing" in lacking.stdout, lacking.stdout
    assert place.published() == set()


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
def test_a_patch_that_does_more_than_write_locks_is_refused(place: Place, change: Callable[[Path], None]) -> None:
    maker, at = place.clone("maker"), place.clone("at")
    change(maker)
    _git(maker, "add", "--all")
    (at / "results").mkdir()
    (at / "results" / "locks.patch").write_text(_git(maker, "diff", "--cached", "--binary"))
    done = place.run(Step("locks", ("bash", "-e"), "bash ci/examples/write-locks.sh"), at)
    assert done.returncode == 5 and "refused" in done.stdout, done.stdout
    assert place.locks() is None and _git(at, "worktree", "list").count("\n") == 1


def test_locks_are_written_beside_what_is_checked_out(place: Place) -> None:
    """Changes in the clone, by whoever, are neither committed nor lost, and a new night replaces the branch."""
    maker, at = place.clone("maker"), place.clone("at")
    (at / "results").mkdir()
    (at / "README.md").write_text("mine\n")
    for text in ("one\n", "two\n"):
        (maker / "catalogue" / "a b.lock").write_text(text)
        _git(maker, "add", "--all")
        (at / "results" / "locks.patch").write_text(_git(maker, "diff", "--cached", "--binary"))
        done = place.run(Step("locks", ("bash", "-e"), "bash ci/examples/write-locks.sh"), at)
        assert done.returncode == 0, done.stdout
        assert place.locks() == {"catalogue/a b.lock": "A"}
        assert _git(place.origin, "show", "relbuild/locks:catalogue/a b.lock") == text
        assert _git(place.origin, "rev-list", "--count", "main..relbuild/locks") == "1\n"
    assert (at / "README.md").read_text() == "mine\n" and _git(at, "rev-parse", "HEAD") == _git(
        maker, "rev-parse", "HEAD"
    )
