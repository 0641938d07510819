"""A build of which nothing changed is recognised by what it read, and says what it would say if it were done."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.product_builds import RECIPE, small_products
from tests.support.rpm_factory import Forge
from tests.support.source import ROOT

_HEAVY = {*("cryptography", "httpx", "jinja2", "pydantic", "rich", "rpm", "solv", "sqlite3", "yaml")}
"""What builds or publishes, or waits for those that do."""

_RUN = """
import json, os, sys
opened = []
sys.addaudithook(lambda event, given: opened.append(given[0]) if event == "open" else None)
from pipeline.cli import main
try:
    main()
finally:
    read = sorted({os.path.abspath(os.fsdecode(one)) for one in opened if isinstance(one, (str, bytes, os.PathLike))})
    with open(os.environ["SEEN"], "w") as file:
        json.dump({"opened": read, "modules": sorted(sys.modules)}, file)
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a build said, and what its process opened and loaded."""

    answer: dict[str, Any]
    text: str
    opened: set[str]
    modules: set[str]

    @property
    def recognised(self) -> bool:
        return "none changed" in self.text

    @property
    def lines(self) -> list[str]:
        """The lines on the result, without the seconds that it took."""
        return [re.sub(r"in \d+\.\d s$", "", line) for line in self.text.partition("\n\n")[2].splitlines()]

    @property
    def built(self) -> dict[str, Any]:
        """The answer without what differs from time to time."""
        return {name: value for name, value in self.answer["built"][0].items() if name != "took_ms"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe with an include, a template and a copied file, and its builds by the command line."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "recipes" / "small.yaml"

    def build(self, *words: str, **variables: str) -> Said:
        seen = self.folder / "seen.json"
        command = [sys.executable, "-c", _RUN, "build", str(self.path), "--json", *words]
        environment = {
            **{name: os.environ[name] for name in ("HOME", "PATH", "PYTHONPYCACHEPREFIX") if name in os.environ},
            **{"PYTHONPATH": str(ROOT), "SEEN": str(seen), "RELBUILD_STORE": str(self.folder / "store")},
            **{"RELBUILD_OUTPUT": str(self.folder / "output"), **variables},
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.folder, check=True)
        found = json.loads(seen.read_text())
        return Said(json.loads(done.stdout), done.stderr, set(found["opened"]), set(found["modules"]))

    def remembered(self) -> list[dict[str, Any]]:
        """What the store remembers of builds."""
        values = (path.read_bytes().partition(b"\n")[2] for path in (self.folder / "store" / "results").glob("*/*"))
        every = [json.loads(value) for value in values if b'"all_lines"' in value]
        return [one for one in every if isinstance(one, dict) and "programs" in one]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> Recipe:
    folder = tmp_path_factory.mktemp("recognised")
    small_products(folder, made)
    for name in ("recipes", "templates"):
        (folder / name).mkdir()
    words = {"name": "small", "version": "1.0", "note": "", "expected": "1\\\\.0", "mode": "0644"}
    text = (RECIPE % words).replace("\nfiles:\n", "\ninclude: [more.yaml]\nfiles:\n")
    (folder / "recipes" / "small.yaml").write_text(text)
    more = "files:\n  - {template: small.j2, path: /etc/small}\n  - {source: copied, path: /etc/copied}\n"
    (folder / "recipes" / "more.yaml").write_text(more)
    (folder / "recipes" / "copied").write_text("copied")
    (folder / "templates" / "small.j2").write_text("{{ name }}\n")
    (folder / "repositories.yaml").rename(folder / "recipes" / "repositories.yaml")
    return Recipe(folder)


def test_the_second_build_says_what_an_ordinary_one_says(recipe: Recipe) -> None:
    first, again = recipe.build(), recipe.build()
    verbose, ordinary = recipe.build("--verbose"), recipe.build("--verbose", OTHER="environment")
    assert (first.recognised, again.recognised, ordinary.recognised) == (False, True, False)
    assert again.built == verbose.built == ordinary.built
    assert verbose.recognised and verbose.lines == ordinary.lines
    assert again.built["verdict_reused"] and not again.built["lock"]["wrote"]
    assert not again.modules & _HEAVY, "what builds is loaded"
    assert "pipeline.build.build_image" not in again.modules
    report = json.loads((recipe.folder / "output" / "small.report" / "report.json").read_text())
    assert report["verdict_reused"] and all(layer["reused"] for layer in report["image"]["layers"])


def test_whatever_a_build_opens_is_compared_the_next_time(recipe: Recipe) -> None:
    """What is opened through `pipeline.beneath` is logged there, and no input is opened otherwise in Python."""
    done = recipe.build(OTHER="another environment")
    remembered = max(recipe.remembered(), key=lambda one: float(one["made"]))
    compared = {path for path, *_ in (*remembered["files"], *remembered["large"])} | set(remembered["programs"])
    elsewhere = ("/proc/", "/sys/", *(f"{recipe.folder / name}" for name in ("store", "output", "seen.json")))
    code = (str(ROOT / "pipeline"), os.environ.get("PYTHONPYCACHEPREFIX") or str(ROOT / "pipeline"))
    files = {
        path for path in done.opened - compared if Path(path).is_file() and not path.startswith((*elsewhere, *code))
    }
    assert {path for path in files if not path.endswith((".py", ".pyc", "/METADATA", "/pyvenv.cfg"))} == set()
    own = {str(recipe.folder / "recipes" / name) for name in ("small.yaml", "more.yaml", "copied", "repositories.yaml")}
    own |= {str(recipe.folder / "templates" / "small.j2"), str(recipe.folder / "key")}
    assert own <= compared


def test_a_change_of_each_input_is_seen(recipe: Recipe) -> None:
    recipe.build("--no-smoke")
    for name in ("templates/small.j2", "key"):
        place = recipe.folder / name
        place.write_bytes(place.read_bytes() + b"\n")
        assert not recipe.build("--no-smoke").recognised, name
    assert recipe.build("--no-smoke").recognised
