"""The name on the command line under which an image must have been signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.recipes import load_rules

IdentityOption = Annotated[
    str,
    typer.Option("--as", help="HOST/NAMESPACE/NAME under which it was signed, where this mirror is a copy."),
]


StaleOption = Annotated[
    bool,
    typer.Option("--allow-stale", help="Take what is signed of a tag although it is too old, and say so."),
]


def identity_for(stated: str, rules: Path | None = None) -> ExpectedIdentity:
    """Return the name that must have been signed.

    It is stated, or as the keeper's rules say in the file that is named. What the mirror itself says is not asked:
    whoever can write to it could say anything.
    """
    return ExpectedIdentity(stated, load_rules(rules).identities if rules is not None else ())
