"""A new catalogue has all that its recipes need, says the same of its platform, and overwrites nothing."""

from __future__ import annotations

import os
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import check_jsonschema
import pytest
from click.testing import CliRunner

from pipeline.errors import UsageError
from pipeline.model.recipe import FileKind
from pipeline.recipes import (
    STARTER,
    CiSystem,
    NewCatalogue,
    load_platforms,
    load_recipe,
    new_catalogue,
    write_catalogue,
)
from pipeline.recipes.platforms import Platforms
from pipeline.yaml_documents import load_yaml

SHIPPED = Path(__file__).parents[3]
PLATFORMS: Platforms = load_platforms(SHIPPED / "recipes/repositories.yaml")
PRODUCTS = sorted(path.stem for path in (SHIPPED / "recipes").glob("*.yaml") if path.name != "repositories.yaml")
BIN = Path(sys.executable).parent
SCHEMA = {
    CiSystem.GITHUB: ["--builtin-schema", "vendor.github-workflows"],
    CiSystem.GITLAB: ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}
START = NewCatalogue(SHIPPED, "local", "x86_64", local=True)


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platform_is_the_one_that_comes_with_relbuild(name: str, tmp_path: Path) -> None:
    write_catalogue(tmp_path, replace(START, platform=name))
    copied = load_platforms(tmp_path / "recipes/repositories.yaml")
    assert copied[name] == PLATFORMS[name] and set(copied) <= {name, *PLATFORMS}
    named = {key for repository in copied[name].repositories for key in repository.keys if key.startswith("keys/")}
    assert len([*tmp_path.glob("recipes/keys/*")]) >= bool(named)
    for place in named:
        key = string.Template(place).substitute(dict(copied[name].variables))
        assert (tmp_path / "recipes" / key).read_bytes() == (SHIPPED / "recipes" / key).read_bytes()


def test_products_come_with_includes_parents_and_templates_for_the_platform_and_architecture(tmp_path: Path) -> None:
    start = replace(START, platform="rocky-9", architecture="aarch64", products=tuple(PRODUCTS))
    write_catalogue(tmp_path, start)
    assert sorted(path.stem for path in tmp_path.glob("recipes/*.yaml")) == sorted([*PRODUCTS, "repositories"])
    for name in PRODUCTS:
        recipe = load_recipe(tmp_path / "recipes" / f"{name}.yaml")
        assert (recipe.platform, recipe.architectures) == ("rocky-9", ("aarch64",))
        templates = [file.origin for file in recipe.files if file.kind is FileKind.TEMPLATE]
        assert all((tmp_path / "templates" / template).is_file() for template in templates)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_first_recipe_is_for_this_machine(arch: str, tmp_path: Path) -> None:
    write_catalogue(tmp_path, replace(START, architecture=arch))
    recipe = load_recipe(tmp_path / f"recipes/{STARTER}.yaml")
    assert (recipe.architectures, recipe.platform) == ((arch,), "local")


def test_nothing_that_is_there_is_changed(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    own = "platforms: {own: {repositories: [{id: a, baseurls: ['https://example.com/$basearch']}]}}\n"
    (tmp_path / "recipes/repositories.yaml").write_text(own)
    (tmp_path / "recipes/mine.yml").write_text("# mine\n")
    (tmp_path / ".gitignore").write_text("mine\n")
    done = write_catalogue(tmp_path, replace(START, platform="own", ci=CiSystem.GITLAB))
    assert done.wrote == ("nightly.sh", ".gitlab-ci.yml") and done.kept == (".gitignore",)
    assert (tmp_path / "recipes/repositories.yaml").read_text() == own
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
    assert sorted(path.name for path in (tmp_path / "recipes").iterdir()) == ["mine.yml", "repositories.yaml"]
    again = write_catalogue(tmp_path, replace(START, platform="own", ci=CiSystem.GITLAB))
    assert again.wrote == () and len(again.kept) == 3


@pytest.mark.parametrize("ci", CiSystem)
def test_scripts_and_ci_files_are_well_formed_and_keys_are_ignored(ci: CiSystem, tmp_path: Path) -> None:
    done = write_catalogue(tmp_path, replace(START, ci=ci))
    subprocess.run([BIN / "shellcheck", tmp_path / "nightly.sh"], check=True)
    assert os.access(tmp_path / "nightly.sh", os.X_OK)
    workflow = {CiSystem.GITHUB: ".github/workflows/nightly.yml", CiSystem.GITLAB: ".gitlab-ci.yml"}.get(ci)
    assert [name for name in done.wrote if name.endswith(".yml")] == ([workflow] if workflow else [])
    if workflow:
        checked = CliRunner().invoke(check_jsonschema.main, [*SCHEMA[ci], str(tmp_path / workflow)])
        assert checked.exit_code == 0, checked.output
        assert "nightly.sh" in str(load_yaml(tmp_path / workflow).value)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    paths = ["release.key", "output/hello/index.json", "results/junit.xml", "recipes/hello.lock", "release.pub"]
    ignored = subprocess.run(
        ["git", "-C", tmp_path, "check-ignore", *paths], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert ignored == paths[:4]


def test_an_unknown_product_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe called 'ngins'") as raised:
        write_catalogue(tmp_path, replace(START, products=("ngins",)))
    assert raised.value.problems[0].hint == "did you mean 'nginx'?"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("ci", [CiSystem.GITHUB, CiSystem.GITLAB])
def test_a_job_that_gets_the_key_installs_nothing_that_was_not_named(ci: CiSystem, shell: str) -> None:
    job = load_yaml(Path(new_catalogue.__file__).parent / "catalogue_files" / f"{ci}.yml").value
    assert isinstance(job, dict)
    if ci is CiSystem.GITHUB:
        (run,) = [step["run"] for step in job["jobs"]["nightly"]["steps"] if step.get("name") == "Install"]
        lines = run.splitlines()
    else:
        lines = job["nightly"]["before_script"]
    script = "\n".join(lines)
    for program in ("apt-get", "python3", "/opt/relbuild/bin/pip"):
        script = script.replace(f"{program} ", "printf '(%s)' ")
    address = "https://host/relbuild-1-py3-none-any.whl#sha256=ab"
    told = {}
    for given in (None, "", address):
        variables = {} if given is None else {"RELBUILD_PACKAGE": given}
        done = subprocess.run(
            [shell, "-ec", script], env={"PATH": os.environ["PATH"], **variables}, capture_output=True, check=False
        )
        told[given] = (done.returncode, done.stdout.decode(), done.stderr.decode())
    for status, out, error in (told[None], told[""]):
        assert (status != 0, out) == (True, "")
        assert "RELBUILD_PACKAGE" in error and ".whl#sha256=" in error
    status, out, _ = told[address]
    assert status == 0 and out.endswith(f"(install)(--quiet)({address})"), out
