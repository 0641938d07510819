"""Resolving in a repository as large as Fedora's, against dnf5 and against libsolv alone.

Cold: nothing is there but the repository, as on the first day or after a change of it. Warm: the same question again.
Both once more with a path that only file lists have, and then with another path, which was not asked for. These rows
are of relbuild's resolver alone, in a process of its own. A whole command, which also reads a recipe, is compared with
dnf5 in rows of its own: `nightly --plan` of a recipe, since `lock` reads the headers of all packages, which the
repository lacks. All must choose the same number of packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import zstandard
from large_repository import listed_files, write_large_repository
from turns import CPU_SECONDS, OURS, ROOT, BenchFailed, Goal, Section, Session, peer, run

PACKAGES = 69_000
DNF5, LIBSOLV = "dnf5", "libsolv alone"
QUESTIONS = ("names", "names and a path")
_INSTALLING = re.compile(r"^ *Installing: +(\d+) package", re.MULTILINE)
_RESOLVED = re.compile(r"resolve +bench: (\d+) packages")
_ANOTHER = "another path after that"
"""A question of which relbuild remembers no answer."""
_COMMAND = "whole command, "
_RECIPE = """name: bench
version: "1"
platform: large
layers:
  - {{name: all, packages: {requests}}}
"""
_PLATFORM = """platforms:
  large:
    repositories:
      - {{id: large, baseurls: ["{url}"], keys: ["{key}"]}}
"""
_REMARK = (
    "Metadata is not signed here. dnf5 looks into an empty database of installed packages and prints a table; it "
    "verifies the checksum of compressed documents. relbuild also verifies that of the decompressed documents, looks "
    "for tags that exhaust libsolv's stack, parses in a process with limits, and finds out why each package is there "
    "and when it is installed. 'solver only' is relbuild from its start, with what a recipe says of packages given, as "
    "no command runs it; 'whole command' is `relbuild nightly --plan` of one recipe, warm, against the same `dnf5 "
    "install --assumeno`. libsolv alone has relbuild's settings of the pool and of memory, and verifies nothing. "
    "relbuild remembers which packages own a path that was asked for; 'another path after that' is one that was not."
)


def dnf5_solves(dnf5: Path, folder: Path, repository: Path, requests: list[str]) -> int:
    """Ask dnf5 what it would install."""
    options = [
        *("--setopt=reposdir=/dev/null", "--setopt=plugins=0", "--setopt=install_weak_deps=0", "--setopt=best=1"),
        *("--no-gpgchecks", "--forcearch=x86_64", "--releasever=1", f"--installroot={folder / 'root'}"),
        *(f"--setopt=cachedir={folder / 'cache'}", f"--setopt=system_cachedir={folder / 'cache'}"),
        *(f"--repofrompath=large,{repository.as_uri()}", "--setopt=metadata_expire=never"),
        *(["--setopt=optional_metadata_types=filelists"] if any(one[0] == "/" for one in requests) else []),
    ]
    done = subprocess.run(
        [dnf5, *options, "--assumeno", "install", *requests],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    told = _INSTALLING.search(done.stdout)
    if told is None:
        raise BenchFailed(f"dnf5 ended with {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    return int(told[1])


def solves_once(who: str, folder: Path, repository: Path, requests: list[str]) -> int:
    """Ask relbuild, or libsolv alone."""
    script = ROOT / "ci" / "bench.d" / "solve_once.py"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(ROOT)
    return int(run(sys.executable, script, who, folder, repository, *requests, env=environment))


def write_recipe(folder: Path, repository: Path, requests: list[str]) -> Path:
    """Write a recipe that asks for these, and its platform; return the recipe's path."""
    folder.mkdir()
    key = ROOT / "recipes" / "keys" / "MICROSOFT-RPM-GPG-KEY"  # A platform must have one; nothing here is signed.
    (folder / "repositories.yaml").write_text(_PLATFORM.format(url=repository.as_uri(), key=key))
    (folder / "bench.yaml").write_text(_RECIPE.format(requests=json.dumps(requests)))
    return folder / "bench.yaml"


def command_solves(store: Path, recipe: Path) -> int:
    """Have a whole command of relbuild resolve a recipe and do nothing more."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    words = ["nightly", "--plan", "--store", str(store), "--to", f"dir:{store.parent / 'mirror'}", str(recipe)]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    told = _RESOLVED.search(done.stderr)
    if told is None:
        raise BenchFailed(f"relbuild nightly --plan ended with {done.returncode}: {done.stderr[-500:]}")
    return int(told[1])


def measure(session: Session) -> None:
    """Ask each of them twice for the same in a turn, the first time with nothing kept."""
    packages = int(session.settings.get("packages", PACKAGES))
    repository = session.folder / "repository"
    names = write_large_repository(repository, packages)
    path, another = listed_files(repository)
    questions = {QUESTIONS[0]: [names], QUESTIONS[1]: [[*names, path], [*names, another]]}
    dnf5 = peer("dnf5")
    for _ in session.turns():
        for question, asked in questions.items():
            chosen = {who: _twice(session, who, dnf5, question, asked) for who in (OURS, DNF5, LIBSOLV)}
            if any(counts != chosen[OURS] for counts in chosen.values()):
                raise BenchFailed(f"they choose different numbers of packages: {chosen}")
    for question in QUESTIONS:
        for when in ("cold", "warm", *([_ANOTHER] if question == QUESTIONS[1] else [])):
            what = f"{question}, {when}"
            for more, goal in (("", None if when == _ANOTHER else Goal(1.0)), (", CPU", None)):
                session.ratio(
                    f"solver only, {packages:,}, {what}{more}: of dnf5's",
                    (OURS, what + more),
                    (DNF5, what + more),
                    goal,
                    limit=(LIBSOLV, what + more),
                )
                session.ratio(
                    f"solver only, {packages:,}, {what}{more}: of libsolv's",
                    (OURS, what + more),
                    (LIBSOLV, what + more),
                )
        for more in ("", ", CPU"):
            what = f"{question}, warm{more}"
            session.ratio(f"whole command, {packages:,}, {what}: of dnf5's", (OURS, _COMMAND + what), (DNF5, what))
    for kind in ("primary", "filelists"):
        what = f"checksum of the decompressed {kind} alone, CPU"
        session.record(OURS, what, _checksum(repository, kind), CPU_SECONDS)
    session.remark(_REMARK)


def _twice(session: Session, who: str, dnf5: Path, question: str, asked: list[list[str]]) -> list[int]:
    """Solve cold and warm in a folder of its own, then for other requests; return how many packages were chosen."""
    folder, repository = session.folder / "kept", session.folder / "repository"
    (folder / "root").mkdir(parents=True)
    chosen: list[int] = []

    def act(requests: list[str]) -> None:
        if who == DNF5:
            chosen.append(dnf5_solves(dnf5, folder, repository, requests))
        elif who == OURS:
            chosen.append(solves_once("relbuild", folder / "store", repository, requests))
        else:
            chosen.append(solves_once("libsolv", folder, repository, requests))

    for when in ("cold", "warm"):
        session.take(who, f"{question}, {when}", lambda: act(asked[0]))
    for other in asked[1:]:
        session.take(who, f"{question}, {_ANOTHER}", partial(act, other))
    if who == OURS:
        recipe = write_recipe(folder / "recipe", repository, asked[0])
        counts = []
        command_solves(folder / "store", recipe)  # What it keeps beside the metadata.
        session.take(
            who,
            f"{_COMMAND}{question}, warm",
            lambda: counts.append(command_solves(folder / "store", recipe)),
        )
        if counts != chosen[:1]:
            raise BenchFailed(f"the command chooses {counts[0]} packages, and the resolver alone {chosen[0]}")
    shutil.rmtree(folder)
    return chosen


def _checksum(repository: Path, kind: str) -> float:
    """Seconds of processor to hash a document, in memory already."""
    with zstandard.ZstdDecompressor().stream_reader((repository / f"repodata/{kind}.xml.zst").read_bytes()) as reader:
        data = reader.read()
    began = time.process_time()
    hashlib.sha256(data)
    return time.process_time() - began


SECTIONS = (Section("solve", "Resolving in a large repository", measure, mirror=False),)
