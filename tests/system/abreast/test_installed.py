"""A wheel, installed outside any checkout, makes a catalogue and a tested image from it."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.packages import librpm
from tests.support.document_sessions import Shell, sessions
from tests.support.patience import HUNG

ROOT = Path(__file__).parents[3]
NO_BINDINGS = "import pipeline.packages.rpm_bindings as found; found.binding_folders = lambda: iter(())\n"


class Installed:
    """A virtual environment with relbuild's wheel in it, and nothing of the checkout.

    The dependencies are those of this interpreter: pip looks whether they are what the wheel asks for, and downloads
    none. rpm's bindings are hidden, as under another version of Python.
    """

    def __init__(self, folder: Path, mirror: Path) -> None:
        self.folder, self.venv, self.home = folder, folder / "venv", folder / "home"
        self.home.mkdir()
        self.environment = {
            "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}", "HOME": str(self.home), "RELBUILD_MIRROR": str(mirror),
            "RELBUILD_KEY_PASSWORD": "for the test",
        }  # fmt: skip
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        self._run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(self._source()))
        (wheel,) = folder.glob("*.whl")
        self._run(sys.executable, "-m", "venv", "--without-pip", str(self.venv))
        (packages,) = self.venv.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
        self._run(*pip, "--python", str(self.venv), "install", "--no-index", "--no-compile", str(wheel))
        (packages / "no-bindings.pth").write_text(NO_BINDINGS)

    def _source(self) -> Path:
        source = self.folder / "source"
        words = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        for name in subprocess.run(words, check=True, capture_output=True, text=True).stdout.split("\0"):
            if name and not name.startswith("tests/") and (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        return source

    def _run(self, *words: str) -> None:
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=self.folder, env=clean)
        assert done.returncode == 0, done.stderr

    def ask(self, *words: str) -> str:
        """Run a command in the home; return what it printed."""
        done = subprocess.run(
            words, cwd=self.home, env=self.environment, capture_output=True, text=True, check=False, timeout=HUNG
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), mirror)


def test_the_command_that_init_prints_ends_with_a_tested_image(installed: Installed) -> None:
    made = json.loads(installed.ask("relbuild", "init", "my products", "--json"))
    assert made["platform"] == "local" and made["next"] == "cd 'my products' && relbuild hello"
    installed.ask("sh", "-c", made["next"])
    report = json.loads((installed.home / "my products/output/hello.report/report.json").read_text())
    assert report["smoke"]["passed"]
    again = json.loads(installed.ask("sh", "-c", f"{made['next']} --json"))
    assert again["built"][0]["passed"] and again["built"][0]["verdict_reused"]


def test_the_readme_is_true_of_the_wheel(installed: Installed) -> None:
    shell = Shell(installed.home, installed.environment | {"PIP_NO_INDEX": "1"})
    (install, *following) = sessions(ROOT / "README.md", "Without a checkout")
    (wheel,) = installed.folder.glob("*.whl")
    shutil.copy(wheel, installed.home)
    # Where pip is: this environment has none of its own.
    (installed.venv / "bin/pip").write_text(f'#!/bin/sh\nexec {sys.executable} -m pip --python {installed.venv} "$@"\n')
    (installed.venv / "bin/pip").chmod(0o755)
    for step in (install, *following):
        shell.type(step)


def test_the_example_of_the_python_api_builds_and_publishes(installed: Installed) -> None:
    installed.ask("relbuild", "init", "by-hand")
    text = (ROOT / "docs/api.md").read_text().partition("<!-- example -->")[2].partition("<!-- end -->")[0]
    (installed.home / "by-hand/example.py").write_text(textwrap.dedent(text))
    said = installed.ask("sh", "-c", "cd by-hand && relbuild keygen release && python example.py").splitlines()
    assert said[0].startswith("hello: ") and said[0].endswith(" packages")
    assert said[-1].endswith(" latest") or ", latest" in said[-1], said
    assert (installed.home / "by-hand/mirror").is_dir()


def test_recipes_and_documents_come_along_and_nothing_is_written_beside_them(installed: Installed) -> None:
    (own,) = installed.venv.glob("lib/python*/site-packages/relbuild")
    before = sorted(path for path in own.rglob("*") if "__pycache__" not in path.parts)
    assert json.loads(installed.ask("relbuild", "lock", "nginx", "--json"))["path"] == "nginx.lock"
    assert (installed.home / "nginx.lock").is_file()
    assert "# The recipe" in installed.ask("relbuild", "help", "recipe")
    assert {"recipe", "sandbox", "errors"} <= set(json.loads(installed.ask("relbuild", "help", "--json")))
    assert sorted(path for path in own.rglob("*") if "__pycache__" not in path.parts) == before


def test_the_module_is_the_command_and_the_doctor_knows_how_rpm_is_reached(installed: Installed) -> None:
    python = str(installed.venv / "bin/python")
    assert installed.ask(python, "-m", "relbuild", "version") == installed.ask("relbuild", "version")
    words = (python, "-m", "relbuild", "init", "again", "--json")
    assert json.loads(installed.ask(*words))["next"] == f"cd again && {python} -m relbuild hello"
    findings = {one["name"]: one for one in json.loads(installed.ask("relbuild", "doctor", "--json"))}
    assert findings["rpm's library"]["ok"] and f"{librpm.SONAME} itself" in findings["rpm's library"]["detail"]
