"""Sessions that documents show: commands, and what they print.

A session is an indented block with lines that begin with `$ `. What stands below such a line is what the command
prints. Numbers, versions and digests may be others, an exit code may not; `…` within a line stands for any text, as a
line for any lines.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.patience import HUNG

_FIGURE = re.compile(
    r"[0-9a-f]{12,64}\b"  # digests
    r"|(?<![a-z]\d)(?<!exit code )\d[\w.+~:-]*(?: (?:ms|s|min|h|[kMGT]?i?B)\b)?"  # numbers, times, sizes, versions
)
_SPEED = re.compile(r" at #/s")


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a session. `place`: document and line; `shown`: the lines that it prints."""

    place: str
    command: str
    shown: tuple[str, ...]

    @property
    def in_background(self) -> bool:
        """Whether it goes on while the next commands run."""
        return self.command.split("  #")[0].rstrip().endswith("&")


def blocks(document: Path) -> list[tuple[str, int, list[str]]]:
    """Each indented block: the heading that it stands under, the number of its first line, its lines."""
    found: list[tuple[str, int, list[str]]] = []
    heading, block, before = "", None, ""
    for number, line in enumerate([*document.read_text().splitlines(), "end"], 1):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("    ") and (block is not None or not before):
            if block is None:
                block = []
                found.append((heading, number, block))
            block.append(line[4:])
        elif line or block is None:
            block = None
        else:
            block.append("")
        before = line
    return found


def sessions(document: Path, *headings: str) -> list[Step]:
    """The commands of the blocks under these headings, in their order."""
    steps: list[Step] = []
    for heading, first, lines in blocks(document):
        if heading in headings:
            for number, line in enumerate(lines, first):
                if line.startswith("$ "):
                    steps.append(Step(f"{document.name}:{number}", line[2:], ()))
                elif line and steps:
                    last = steps.pop()
                    steps.append(Step(last.place, last.command, (*last.shown, line)))
    return steps


def _plain(line: str) -> str:
    """The line without what differs from machine to machine."""
    return " ".join(_SPEED.sub("", _FIGURE.sub("#", line)).split())


def printed_as_shown(shown: Sequence[str], printed: str) -> bool:
    """Whether a command printed what a document shows."""
    said = [_plain(line) for line in printed.splitlines() if line.strip()]
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(_plain(line)).replace("…", ".*") + r"\n" for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in said)) is not None


class Shell:
    """What types the commands of sessions: in a folder, with an environment, through words that begin each command."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *prefix: str) -> None:
        self._folder, self._environment, self._prefix = folder, dict(environment), prefix
        self._behind: list[subprocess.Popen[bytes]] = []
        self._outputs = folder.parent / "printed"
        self._outputs.mkdir()

    def type(self, step: Step, **more: str) -> None:
        """Run a command; hold what it prints, and its end, to what is shown."""
        output = self._outputs / step.place
        background = step.in_background
        line = step.command.split("  #")[0].rstrip()
        # What is started by `&` would be its shell's child and no longer ours.
        words = [*self._prefix, "bash", "-c", f"exec {line.removesuffix('&')}" if background else line]
        with output.open("wb") as file:
            process = subprocess.Popen(
                words, cwd=self._folder, env=self._environment | more, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        if background:
            self._behind.append(process)
            _wait(lambda: printed_as_shown(step.shown, output.read_text()) or process.poll() is not None)
        else:
            status = process.wait(HUNG)
            failed = any(line.startswith("error[") for line in step.shown)
            assert (status != 0) == failed, f"{step.place}: {step.command}: {status}\n{output.read_text()}"
        said = output.read_text()
        expected = "\n".join(step.shown)
        assert printed_as_shown(step.shown, said), f"{step.place}: {step.command}\n{said}\nand not\n{expected}"

    def close(self) -> None:
        """End what still runs."""
        for process in self._behind:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(HUNG)


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HUNG
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)
