"""Fuzzes one target in this process. Importing this takes seconds: everything that is imported is instrumented."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import atheris

_LIBRARIES = ("yaml", "jinja2", "license_expression", "boolean", "tomllib")
"""Libraries of Python that read a target's bytes: their branches guide the engine, too."""

# It names each module that it instruments.
with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["pipeline", *_LIBRARIES]):
    from tests.fuzz.forms import changed
    from tests.fuzz.reader import reader_digest
    from tests.fuzz.targets import attempt

# What was imported lives for ever: the collector need not walk it again and again.
gc.collect()
gc.freeze()


def fuzz(name: str, corpus: Path, options: Sequence[str]) -> NoReturn:
    """Print the reader's digest and hand over to libFuzzer, whose `options` these are: it ends the process."""
    print(f"reader: {reader_digest(name, corpus)}", flush=True)
    atheris.Setup(
        [sys.argv[0], *options],
        lambda data: attempt(name, data),
        custom_mutator=lambda data, most, seed: changed(name, data, most, seed, atheris.Mutate),
    )
    atheris.Fuzz()
    raise SystemExit(1)
