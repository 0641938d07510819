"""Fuzzes one target until libFuzzer's options end it. Usage: one.py TARGET WORK CORPUS [libFuzzer options]"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["pipeline", "yaml"]):
    from tests.fuzz.targets import attempt


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: attempt(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
