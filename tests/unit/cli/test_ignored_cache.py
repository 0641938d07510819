"""A relative XDG_CACHE_HOME, which is ignored, is told once by each command that has a store."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.api import Settings, _environment
from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from tests.support.journal import Told


def warnings(home: Path, *words: str, cache: str, **environment: str) -> tuple[list[str], str]:
    """Return the lines with the variable's name that a command prints, and its output."""
    import_commands(words[0])
    given = {"HOME": str(home), "XDG_CACHE_HOME": cache, "RELBUILD_STORE": "", **environment}
    done = CliRunner().invoke(app, list(words), env={name: one or None for name, one in given.items()})
    assert done.exit_code == 0, done.stderr
    assert "XDG_CACHE_HOME" not in done.stdout
    return [line for line in done.stderr.splitlines() if "XDG_CACHE_HOME" in line], done.stdout


@pytest.mark.parametrize("given", [".cache", "./cache", "~/cache"])
@pytest.mark.parametrize("words", [("ps",), ("scrub",), ("scrub", "-q"), ("scrub", "--progress", "plain")])
def test_a_relative_one_is_warned_of_once(given: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """Under -q too, which shows warnings."""
    open_directory(tmp_path / "mirror", create=True, clock=time.time)
    name, *options = words
    mirror = [f"dir:{tmp_path}/mirror"] if name == "scrub" else []
    (warned,), out = warnings(tmp_path, name, *mirror, *options, "--json", cache=given)
    assert f"'{given}'" in warned and "ignored" in warned and "RELBUILD_STORE" in warned
    json.loads(out)
    assert (tmp_path / ".cache" / "relbuild" / "store").is_dir()


def test_what_is_not_ignored_is_not_warned_of(tmp_path: Path) -> None:
    assert warnings(tmp_path, "ps", cache=str(tmp_path / "cache"))[0] == []
    assert warnings(tmp_path, "ps", cache="")[0] == []


def test_nor_where_the_store_is_given(tmp_path: Path) -> None:
    assert warnings(tmp_path, "ps", "--store", str(tmp_path / "s"), cache=".cache")[0] == []
    assert warnings(tmp_path, "ps", cache=".cache", RELBUILD_STORE=str(tmp_path / "s"))[0] == []
    assert warnings(tmp_path, "version", cache=".cache")[0] == []


def test_the_api_warns_of_it(tmp_path: Path) -> None:
    told = Told()
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": ".cache"}
    _environment(Settings(environment=environment, progress=told))
    assert len(told.warnings) == 1 and "XDG_CACHE_HOME" in told.warnings[0]
    _environment(Settings(environment=environment, progress=told, store=tmp_path / "s"))
    assert len(told.warnings) == 1
