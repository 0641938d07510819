"""Load the mirror's rules and the expected signing identity that options give."""

from __future__ import annotations

from pathlib import Path

from pipeline.mirror.address import Address
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.model.rules import MirrorRules
from pipeline.recipes import load_rules

RULES_FILE = "rules.yaml"
"""The file of the mirror's rules in the root of a directory mirror."""


def rules_for(address: Address, rules: Path | None) -> MirrorRules:
    """Load the mirror's rules from the file that is given, else from a directory mirror's root."""
    if rules is not None:
        return load_rules(rules)
    own = address.form.operators_file(address, RULES_FILE)
    return load_rules(own) if own is not None else MirrorRules()


def identity_for(stated: str, rules: Path | None = None) -> ExpectedIdentity:
    """Return the settings for the identity under which images must be signed.

    That is the stated one, or follows from the identities in the given rules file. Rules on the mirror itself are not
    read, because anyone who can write to the mirror can write them.
    """
    return ExpectedIdentity(stated, load_rules(rules).identities if rules is not None else ())
