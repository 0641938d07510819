"""Names of folders with characters that macros, shells, globs and configuration files read as their own."""

from __future__ import annotations

import os

AWKWARD_NAMES = (
    *("a b", "a\nb", "a\\b'\"$(touch RAN)`touch RAN`", "x%(touch RAN)", "%{nil}", "100%", "50%%"),
    *("[a]{b,c}*?", "~", "#a;b:c,d", "caf\u00e9", os.fsdecode(b"caf\xe9")),
)
