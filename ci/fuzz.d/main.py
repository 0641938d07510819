"""Runs the fuzzing of each target in a process of its own and says how much was executed and found."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from one import fuzz
from results import Row, added, read_rows, write_rows

from tests.fuzz.reader import reader_digest
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+)")
_READER = re.compile(r"^reader: ([0-9a-f]+)$", re.MULTILINE)
_INPUT_SECONDS = 10
_INPUT_MIB = 2048
_LENGTH = 8192
"""Bytes of an input: what is longer is cut, so that an execution stays quick."""
_LENGTHS = {"challenge": 1024, "licence": 512, "mirrorlist": 2048, "pulls": 1024, "rendering": 1024}
"""Of readers of lines, in which more lines are more of the same."""


def main() -> int:
    """Fuzz the targets that were named, or all."""
    given = _arguments()
    if given.list:
        return max(_in_child(1, partial(_list, name)) for name in TARGETS)
    finds = 0
    for name in given.target or TARGETS:
        if name not in TARGETS:
            sys.exit(f"no such target: {name}; there are: {', '.join(TARGETS)}")
        row = _fuzz(name, given)
        finds += row.finds
        if given.result is not None:
            write_rows(given.result, added(read_rows(given.result), row), tuple(TARGETS))
    return 1 if finds else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="*")
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=10_000, help="executions of each target")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target, at the most")
    parser.add_argument(
        "--result", type=Path, help="add to the target's line of this file, or begin it anew if its reader changed"
    )
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"), help="where inputs that were found are kept")
    parser.add_argument("--list", action="store_true", help="tell the targets, and the digest of each one's code")
    return parser.parse_args()


def _list(name: str) -> None:
    print(f"{name}\t{reader_digest(name, CORPUS / name)}", flush=True)


def _fuzz(name: str, given: argparse.Namespace) -> Row:
    work = given.work / name
    for folder in (work, CORPUS / name, given.finds):
        folder.mkdir(parents=True, exist_ok=True)
    options = [
        str(work),
        str(CORPUS / name),
        f"-runs={given.runs}",
        f"-max_total_time={max(1, round(given.minutes * 60))}",
        f"-timeout={_INPUT_SECONDS}",
        f"-rss_limit_mb={_INPUT_MIB}",
        f"-max_len={_LENGTHS.get(name, _LENGTH)}",
        f"-artifact_prefix={given.finds / name}-",
        "-print_final_stats=1",
    ]
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        status = _in_child(output.fileno(), lambda: fuzz(name, CORPUS / name, options))
        seconds = round(time.monotonic() - began)
        output.seek(0)
        said = output.read().decode(errors="replace")
    row = Row(
        name,
        int(([0, *_EXECUTED.findall(said)])[-1]),
        int(([0, *_COVERED.findall(said)])[-1]),
        seconds,
        int(status != 0),
        1,
        (["", *_READER.findall(said)])[-1],
    )
    print("\t".join(row.cells()), flush=True)
    if status:
        print(said[-3000:], flush=True)
    return row


def _in_child(output: int, work: Callable[[], object]) -> int:
    """Do the work in a fork of this process, which has everything imported, and return its exit status."""
    child = os.fork()
    if child == 0:
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            work()
            os._exit(0)
        except SystemExit as error:
            os._exit(error.code if isinstance(error.code, int) else 1)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
