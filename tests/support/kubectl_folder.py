"""A folder with a program that answers as kubectl does, and what it has recorded."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RelbuildError
from tests.support import fake_kubectl


@dataclass
class KubectlFolder:
    """A folder with the program, and what it has recorded."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "kubectl"

    def says(self, **told: object) -> None:
        (self.folder / "says.json").write_text(json.dumps(told))

    def calls(self, verb: str) -> list[list[str]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [words for words, _ in map(json.loads, lines) if words[0] == verb]

    @property
    def pod(self) -> Any:
        return json.loads((self.folder / "pod.json").read_text())


def kubectl_folder(folder: Path) -> KubectlFolder:
    """Make `folder` with the program."""
    made = KubectlFolder(folder)
    made.folder.mkdir()
    made.program.write_text(f"#!{sys.executable} -IS\n" + Path(fake_kubectl.__file__).read_text())
    made.program.chmod(0o755)
    return made


def refused(error: pytest.ExceptionInfo[RelbuildError]) -> tuple[str, str]:
    """Code and message of the only problem."""
    (problem,) = error.value.problems
    return problem.code, problem.message
