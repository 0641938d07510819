"""rpm's library is loaded without the interpreters that a virtual environment's shim starts, where that can be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import site, subprocess, sys
started = []
check_output = subprocess.check_output
subprocess.check_output = lambda *given, **named: (started.append(given), check_output(*given, **named))[1]
site.getsitepackages = lambda prefixes=None: {folders!r}
from pipeline.packages.rpm_library import rpm
assert rpm.expandMacro("%name") == "%name" and rpm.ts
print(len(started))
"""


def started(folders: list[str]) -> int:
    """The interpreters that were started until rpm was loaded, which stands in one of `folders`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folders=folders)], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.fixture
def shim() -> None:
    if sys.prefix == sys.base_prefix:
        pytest.fail("the tests run in a virtual environment: ci/setup makes it")


@pytest.mark.usefixtures("shim")
def test_bindings_in_their_usual_place_are_loaded_from_there() -> None:
    import rpm

    assert rpm.__file__ is not None
    assert started([str(Path(rpm.__file__).parents[1])]) == 0


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("text", [None, "from rpm._rpm import *", "raise ImportError('of another interpreter')"])
def test_elsewhere_the_shim_finds_them(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "rpm").mkdir()
        (tmp_path / "rpm" / "__init__.py").write_text(text)
        (tmp_path / "rpm" / "_rpm.cpython-36m-x86_64-linux-gnu.so").touch()
    assert started([str(tmp_path)]) > 0
