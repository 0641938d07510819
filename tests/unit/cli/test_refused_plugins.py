"""Pydantic loads no plugins in a command, and nothing that searches for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_PLUGIN = """
class Told:
    def new_schema_validator(self, *_, **__):
        print("a plugin has a say")
        return None, None, None
plugin = Told()
"""

_MODEL = """
import pydantic
class Model(pydantic.BaseModel):
    a: int
Model(a=1)
"""

_REFUSED = "from pipeline.cli.refused_plugins import refuse_plugins; refuse_plugins()"


def run(folder: Path, *lines: str) -> str:
    """Run lines of Python where a plugin is installed; return what they print."""
    info = folder / "plugin-1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Name: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pydantic]\nplugin = a_plugin:plugin\n")
    (folder / "a_plugin.py").write_text(_PLUGIN)
    words = [sys.executable, "-c", "\n".join((f"import sys; sys.path.append({str(folder)!r})", *lines))]
    variables = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=variables).stdout


def test_a_plugin_has_no_say(tmp_path: Path) -> None:
    assert "a plugin has a say" in run(tmp_path, _MODEL)
    assert run(tmp_path, _REFUSED, _MODEL) == ""


def test_nothing_that_searches_for_plugins_is_loaded(tmp_path: Path) -> None:
    """E-mail, sockets and archives come with it. Reading a whole recipe needs none of them either."""
    told = run(tmp_path, _REFUSED, _MODEL, "import json", "print(json.dumps(sorted(sys.modules)))")
    assert not {"importlib.metadata", "email.message", "zipfile"} & set(json.loads(told))
    told = run(tmp_path, _REFUSED, "import pipeline.recipes.merge, json", "print(json.dumps(sorted(sys.modules)))")
    assert not {"importlib.metadata", "email.message", "zipfile"} & set(json.loads(told))


def test_who_asks_for_something_else_gets_pydantics_own(tmp_path: Path) -> None:
    """Another version of pydantic may use more of its module."""
    told = run(
        tmp_path,
        _REFUSED,
        "import pydantic",
        "from pydantic.plugin._loader import PYDANTIC_ENTRY_POINT_GROUP, get_plugins",
        "print(PYDANTIC_ENTRY_POINT_GROUP, list(get_plugins()))",
    )
    assert told == "pydantic []\n"


def test_children_have_none_either(tmp_path: Path) -> None:
    assert run(tmp_path, _REFUSED, "import os; print(os.environ['PYDANTIC_DISABLE_PLUGINS'])") == "1\n"
