"""Run the cases of misuse against a checkout, record what it says, and write docs/misuses.md from the records."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WITHIN = 180
"""Seconds that a case may take; one that takes longer is recorded as such."""
BEFORE = "commit 26f2fd5 of 2026-11-25"
"""The commit that before.json was recorded on."""
LONGEST = 24
"""Lines of what was said that are recorded: more is the log of a product."""

PROGRESS = re.compile(
    r'\{"event"| +(fetch|resolve|verify|layer|unpack|state|smoke|publish|check|read)  .*, [0-9.…]+ m?s$'
)
VOLATILE = re.compile(
    r"\b[0-9a-f]{64}\b|(?:…|\d+(?:\.\d+)?) (?:ms|s)\b|(?<=198\.18\.)\d+\.\d+|(?<=draft-)[0-9a-f]{8}"
    r"|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d|(?<=as )\d+(?=:0)"
)
"""Digests, times, addresses, names of drafts."""
PRELUDE = """
relbuild() { "$PYTHON" -m pipeline "$@"; }
interrupt() { "$PYTHON" "$INTERRUPT" "$@"; }
"""
Case = dict[str, Any]
Record = dict[str, dict[str, Any]]


def read_cases() -> list[Case]:
    """Return the cases in their order."""
    return list(yaml.safe_load((HERE / "cases.yaml").read_text()))


def prepare(case: Case, checkout: Path, folder: Path) -> None:
    """Copy recipes and templates of a checkout into a folder, and make the mistake in them."""
    for name in ("recipes", "templates"):
        shutil.copytree(checkout / name, folder / name, ignore=shutil.ignore_patterns("*.lock"))
    for name, changes in case.get("edit", {}).items():
        path = folder / name
        text = path.read_text()
        for old, new in changes.items():
            if old not in text:
                raise SystemExit(f"{case['name']}: {old!r} is not in {name}")
            text = text.replace(old, new, 1)
        path.write_text(text)


def run(case: Case, checkout: Path, python: str, home: Path) -> dict[str, Any]:
    """Run a case; return its exit code and what it said."""
    with tempfile.TemporaryDirectory(prefix="misuse") as name:
        folder = Path(name)
        prepare(case, checkout, folder)
        environment = {
            "HOME": str(home), "PATH": os.environ["PATH"], "PYTHON": python, "PYTHONPATH": str(checkout),
            "INTERRUPT": str(HERE / "interrupt.py"), "RELBUILD_MIRROR": os.environ["RELBUILD_MIRROR"],
            "RELBUILD_KEY_PASSWORD": "secret", "LANG": "C.UTF-8", "RELBUILD_PROGRESS": "plain",
        }  # fmt: skip
        words = ["unshare", "--mount", "--net", "bash", "-c", f"{PRELUDE}ip link set lo up\n{script(case)}"]
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=WITHIN, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"exit": None, "said": [f"(nothing within {WITHIN} s)"]}
        said = done.stdout.decode(errors="backslashreplace").replace(str(folder), ".").replace(str(home), "~")
        said = said.replace(os.environ["RELBUILD_MIRROR"], "MIRROR").replace(str(checkout), "CHECKOUT")
        return {"exit": done.returncode, "said": list(steady(said))}


def steady(said: str) -> Iterator[str]:
    """Yield the lines without what differs from run to run."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and not PROGRESS.match(line)]
    for line in lines[:LONGEST]:
        yield VOLATILE.sub("…", line)
    if len(lines) > LONGEST:
        yield f"… {len(lines) - LONGEST} more lines"


def script(case: Case) -> str:
    """Return what is typed."""
    return str(case.get("shell") or f"relbuild {case['run']}").strip()


def page(cases: list[Case], before: Record, now: Record) -> str:
    """Return docs/misuses.md."""
    lines = [
        "# Misuses", "",
        "What people do by mistake, and what relbuild says of it. `ci/misuses` writes this page: it runs each case of",
        "`ci/misuses.d/cases.yaml` in a fresh folder with the product recipes, and with `--before COMMIT` the same on",
        f"an earlier commit: what stands here as before is {BEFORE}. {len(cases)} cases; [errors.md](errors.md)",
        "lists all codes.", "",
        "| | misuse | exit code before | now | code now |", "|---:|---|---:|---:|---|",
    ]  # fmt: skip
    for number, case in enumerate(cases, 1):
        was, is_ = before.get(case["name"], {}), now.get(case["name"], {})
        lines.append(f"| {number} | {case['title']} | {was.get('exit', '')} | {is_.get('exit', '')} | {codes(is_)} |")
    group = ""
    for number, case in enumerate(cases, 1):
        if case.get("group", group) != group:
            group = case["group"]
            lines += ["", f"## {group}"]
        lines += ["", f"**{number}. {case['title'][0].upper()}{case['title'][1:]}.**"]
        for name, changes in case.get("edit", {}).items():
            lines.append(f"In `{name}`, {'; '.join(f'{quoted(a)} became {quoted(b)}' for a, b in changes.items())}.")
        lines += ["", "```", *(f"$ {line}" for line in script(case).splitlines()), "```"]
        was, is_ = before.get(case["name"], {}), now.get(case["name"], {})
        if was.get("said") == is_.get("said") and was.get("exit") == is_.get("exit"):
            lines += ["", f"Before and now, exit code {is_.get('exit')}:", "", "```", *is_.get("said", []), "```"]
        else:
            for title, one in (("Before", was), ("Now", is_)):
                lines += ["", f"{title}, exit code {one.get('exit')}:", "", "```", *one.get("said", []), "```"]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a text of one line as code."""
    return f"`{' ⏎ '.join(text.strip().splitlines())}`" if text.strip() else "nothing"


def codes(one: dict[str, Any]) -> str:
    """Return the error codes in what was said."""
    found = re.findall(r"^(?:error|warning)\[([a-z-]+)\]", "\n".join(one.get("said", [])), re.MULTILINE)
    return ", ".join(f"`{code}`" for code in dict.fromkeys(found))


def load(record: str) -> Record:
    """Return what is recorded, nothing at first."""
    path = HERE / f"{record}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def main() -> None:
    """Run, record, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--record", choices=("before", "now"), required=True)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    cases = read_cases()
    recorded = load(given.record)
    with tempfile.TemporaryDirectory(prefix="misuses") as home:
        for case in cases:
            if not given.names or case["name"] in given.names:
                recorded[case["name"]] = run(case, given.checkout, given.python, Path(home))
                print(f"{recorded[case['name']]['exit']}\t{case['name']}", flush=True)
    known = {case["name"]: recorded[case["name"]] for case in cases if case["name"] in recorded}
    (HERE / f"{given.record}.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    (ROOT / "docs/misuses.md").write_text(page(cases, load("before"), load("now")))


if __name__ == "__main__":
    main()
