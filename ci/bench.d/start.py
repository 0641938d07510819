"""The processor time of commands before their first line of work, against `dnf --version`.

User and system time of whole processes together, so that what other processes do changes little.
"""

from __future__ import annotations

import sys

from turns import Goal, Section, Session, relbuild, run

PEERS = {"dnf --version": ["dnf", "--version"], "python -c pass": [sys.executable, "-c", "pass"]}
COMMANDS = ("--help", "version", "verify --help", "publish --help", "store gc --help", "nightly --help", "build --help")
START, CPU = "start", "start, CPU"


def measure(session: Session) -> None:
    """Start each once in a turn."""
    for _ in session.turns():
        for name, peer in PEERS.items():
            session.take(name, START, lambda: run(*peer))  # noqa: B023
        for words in COMMANDS:
            session.take(f"relbuild {words}", START, lambda: relbuild(*words.split()))  # noqa: B023
    for words in COMMANDS:
        goal = Goal(0.5) if words == "--help" else None
        session.ratio(
            f"relbuild {words}: CPU of `dnf --version`'s", (f"relbuild {words}", CPU), ("dnf --version", CPU), goal
        )


SECTIONS = (Section("start", "Commands before their first line of work", measure, mirror=False),)
