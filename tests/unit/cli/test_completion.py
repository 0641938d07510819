"""What shells complete: commands, options, their values, recipes, platforms, layouts and tags."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.cli.completion import LINE_VARIABLE, SCRIPTS, completed_values
from pipeline.cli.main import run_command_line

REPOSITORIES = """\
variables:
  own: x
platforms:
  local: {extends: x}
  fedora-44:
    variables:
      release: "44"
  fedora-45:
    extends: fedora-44
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with recipes, a layout and a mirror."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "repositories.yaml").write_text(REPOSITORIES)
    for name in ("mysql", "memcached", "nginx"):
        (recipes / f"{name}.yaml").write_text(f"name: {name}\n")
    (tmp_path / "output" / "nginx").mkdir(parents=True)
    (tmp_path / "output" / "nginx" / "oci-layout").write_text("{}")
    for tag in ("1.26.3", "latest", "sha256-ab", "move.latest.1.a"):
        path = tmp_path / "mirror" / "repositories" / "team" / "nginx" / "_tags" / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(line: str) -> list[str]:
    return [one.value for one in completed_values(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("relbuild ver", ["verify", "version"]),
        ("relbuild m", ["memcached", "mysql", "mirror/"]),
        ("relbuild --v", ["--version"]),
        ("relbuild store ", ["du", "gc", "fsck"]),
        ("relbuild store g", ["gc"]),
        ("relbuild build m", ["memcached", "mysql", "mirror/"]),
        ("relbuild build mysql n", ["nginx"]),
        ("relbuild build recipes/n", ["recipes/nginx.yaml"]),
        ("relbuild build rec", ["recipes/"]),
        ("relbuild mysql --upg", ["--upgrade"]),
        ("relbuild build --compression ", ["gzip", "zstd"]),
        ("relbuild build --compression=z", ["--compression=zstd"]),
        ("relbuild build mysql --platform fed", ["fedora-44", "fedora-45"]),
        ("relbuild build --offline --platform fedora-44 ng", ["nginx"]),
        ("relbuild explain nginx ", []),
        ("relbuild run out", ["output/", "output/nginx"]),
        ("relbuild verify d", ["dir:"]),
        ("relbuild verify dir:mirr", ["dir:mirror/"]),
        ("relbuild verify dir:mirror/", ["dir:mirror/team/nginx:"]),
        ("relbuild verify dir:mirror/team/nginx:", ["dir:mirror/team/nginx:1.26.3", "dir:mirror/team/nginx:latest"]),
        ("relbuild verify dir:mirror/team/nginx:l", ["dir:mirror/team/nginx:latest"]),
        ("relbuild completion ", ["bash", "zsh", "fish"]),
        ("relbuild 'unclosed", []),
        ("", ["build"]),
    ],
)
def test_a_word_is_completed_by_what_may_stand_there(line: str, expected: list[str]) -> None:
    found = values(line)
    assert found[:1] == ["build"] if not line else found == expected


def test_paths_are_left_to_the_shell() -> None:
    assert [one.kind for one in completed_values("relbuild publish nginx --key ")] == ["file"]


def test_an_option_that_was_given_is_not_offered_again_unless_it_may_be() -> None:
    offered = values("relbuild build --offline --arch x86_64 --")
    assert "--offline" not in offered and "--arch" in offered and "--upgrade" in offered


def test_what_goes_wrong_while_one_types_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path("recipes") / "repositories.yaml").unlink()
    monkeypatch.setenv(LINE_VARIABLE, "relbuild nonsense --platform x")
    run_command_line()
    assert capsys.readouterr() == ("", "")


def test_bash_loads_its_script_and_inserts_no_colon_twice(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "relbuild"
    program.parent.mkdir()
    keep = f"printf '%s' \"${LINE_VARIABLE}\" > line"
    program.write_text(f"#!/bin/sh\n{keep}\nprintf 'plain\\tdir:m/a:latest\\thelp\\n'\n")
    program.chmod(0o755)
    (tmp_path / "script").write_text(SCRIPTS["bash"])
    line = "relbuild verify dir:m/a:l"
    asked = f". ./script; COMP_LINE='{line}'; COMP_POINT={len(line)}; _relbuild; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        ["bash", "--norc", "-c", asked],
        env={"PATH": f"{program.parent}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "latest\n"
    assert (tmp_path / "line").read_text() == line
