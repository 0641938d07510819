"""Load the expected signing identity that options give."""

from __future__ import annotations

from pathlib import Path

from pipeline.mirror.signed_identity import ExpectedIdentity


def identity_for(stated: str, rules: Path | None = None) -> ExpectedIdentity:
    """Return the settings for the identity under which images must be signed.

    That is the stated one, or follows from the identities in the given rules file. Rules on the mirror itself are not
    read, because anyone who can write to the mirror can write them.
    """
    if rules is None:
        return ExpectedIdentity(stated)
    # Here and not above: reading rules needs what reads recipes.
    from pipeline.recipes import load_rules

    return ExpectedIdentity(stated, load_rules(rules).identities)
