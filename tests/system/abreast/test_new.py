"""`relbuild new`: a first recipe is valid at once, builds, passes its tests, and never replaces anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.build import build
from pipeline.errors import RecipeError
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.recipes import (
    Scaffold,
    find_recipe,
    load_recipe,
    scaffold_text,
    write_scaffold,
)
from tests.support.patience import HUNG
from tests.support.sites import relbuild
from tests.support.tiny_root import require_root
from tests.system.conftest import ROOT


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a catalogue to begin recipes in."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    return tmp_path


def new(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, run in `home`."""
    return relbuild(home, "new", *words)


@pytest.mark.parametrize(
    ("words", "layers", "packages"),
    [
        ((), ["base", "product", "state"], {"memcached"}),
        (("--package", "memcached", "--package", "nginx"), ["base", "product", "state"], {"memcached", "nginx"}),
        (("--from", "base"), ["base/base", "base/state", "state"], set()),
        (("--from", "base", "-p", "memcached"), ["base/base", "base/state", "product", "state"], {"memcached"}),
    ],
    ids=["alone", "of packages", "from", "from, with packages"],
)
def test_a_first_recipe_builds_and_passes(
    home: Path, build_env: BuildEnvironment, words: tuple[str, ...], layers: list[str], packages: set[str]
) -> None:
    require_root()
    (home / "recipes" / "memcached.yaml").unlink()
    done = new(home, "memcached", *words)
    assert done.returncode == 0, done.stderr
    recipe = home / "recipes" / "memcached.yaml"
    assert find_recipe("memcached", [home / "recipes"]) == recipe
    built = build(BuildOptions(recipe, home / "recipes" / "repositories.yaml", output=home / "output"), build_env)
    assert built.report is not None and built.report.passed
    assert [layer.name for layer in built.image.layers] == layers
    assert packages <= {one.nevra.name for one in built.bill.packages}
    assert {path.name for path in (home / "recipes").glob(".*")} == set(), "no draft is left"


def test_without_a_base_it_brings_its_own_and_names_a_platform(home: Path, build_env: BuildEnvironment) -> None:
    require_root()
    shutil.copy(home / "recipes" / "repositories.yaml", home)
    done = new(home, "memcached", "--folder", "elsewhere", "--repositories", "repositories.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"path": "elsewhere/memcached.yaml"}
    recipe = load_recipe(home / "elsewhere" / "memcached.yaml")
    assert recipe.platform == "local"
    built = build(
        BuildOptions(home / "elsewhere" / "memcached.yaml", home / "repositories.yaml", output=home / "o"), build_env
    )
    assert built.report is not None and built.report.passed


def test_what_is_in_comments_holds_as_well(home: Path) -> None:
    """Every comment that looks like YAML is YAML that the recipe may have."""
    write_scaffold(home / "recipes" / "thing.yaml", Scaffold("thing", ("nginx",), include="base.yaml"))
    text = (home / "recipes" / "thing.yaml").read_text()
    keys = ["architectures", "accounts", "users", "files", "values"]
    keys += ["entrypoint", "user", "exposed_ports", "volumes", "ready"]
    opened, count = re.subn(rf"^( *)# ( *(?:{'|'.join(keys)}):|  - \{{template)", r"\1\2", text, flags=re.MULTILINE)
    assert count == len(keys) + 1
    opened = opened.replace("  ready: {log: waiting, within: 10s}\n", "")
    (home / "templates" / "thing.conf.j2").write_text("port {{ port }}\n")
    (home / "recipes" / "thing.yaml").write_text(opened)
    recipe = load_recipe(home / "recipes" / "thing.yaml")
    assert recipe.architectures == ("x86_64", "aarch64")
    assert recipe.image.exposed_ports and recipe.image.volumes == ("/var/lib/thing",)
    assert [user.name for user in recipe.users] == ["thing"] and len(recipe.files) == 1


@pytest.mark.parametrize(
    ("words", "status", "code", "says"),
    [
        (("nginx",), 2, "recipe-exists", "choose another name"),
        (("My Product",), 2, "name-malformed", "my-product"),
        (("../evil",), 2, "name-malformed", "evil"),
        (("thing.report",), 3, "name-reserved", "-report"),
        (("thing", "--from", "ngnix"), 3, "from-missing", "thing.yaml:"),
        (("thing", "--platform", "centos"), 3, "platform-unknown", "centos-stream-9"),
        (("thing", "--folder", "empty", "--repositories", "none.yaml"), 3, "document-missing", "none.yaml"),
    ],
)
def test_errors_say_the_way_out_and_nothing_is_written(
    home: Path, words: tuple[str, ...], status: int, code: str, says: str
) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    done = new(home, *words)
    assert (done.returncode, f"error[{code}]" in done.stderr, says in done.stderr) == (status, True, True), done.stderr
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_of_many_at_once_one_writes_it(home: Path) -> None:
    outcomes = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline", "new", "thing", "-p", package],
            cwd=home,
            env={"HOME": str(home), "PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        for package in ("nginx", "redis", "valkey")
    ]
    statuses = [process.wait(HUNG) for process in outcomes]
    assert sorted(statuses) == [0, 2, 2]
    winner = ("nginx", "redis", "valkey")[statuses.index(0)]
    expected = scaffold_text(Scaffold("thing", (winner,), include="base.yaml"))
    assert (home / "recipes" / "thing.yaml").read_text() == expected


@pytest.mark.parametrize("package", ["mysql-server >= 8", "/usr/bin/python3", "a: b", "null", "7", "x]", 'q"q', "#no"])
def test_every_request_stays_the_text_that_was_given(home: Path, package: str) -> None:
    path = home / "recipes" / "thing.yaml"
    try:
        write_scaffold(path, Scaffold("thing", (package,), include="base.yaml"))
    except RecipeError as error:
        assert all((one.place or "").startswith("thing.yaml") for one in error.problems) and not path.exists()
        assert package in ("a: b", "x]", 'q"q', "#no"), "refused as a request, not as YAML"
        assert {one.code for one in error.problems} == {"request-malformed"}
    else:
        assert package in [request.text for layer in load_recipe(path).layers for request in layer.requests]
