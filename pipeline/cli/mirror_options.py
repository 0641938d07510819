"""The keeper's rules and the identity that must have signed, from a command's options."""

from __future__ import annotations

from pathlib import Path

from pipeline.mirror.address import Address
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.model.rules import MirrorRules
from pipeline.recipes import load_rules

RULES_FILE = "rules.yaml"
"""The keeper's rules in the root of a directory mirror."""


def rules_for(address: Address, rules: Path | None) -> MirrorRules:
    """The keeper's rules: those that are named, or those that a directory mirror brings."""
    if rules is not None:
        return load_rules(rules)
    own = address.form.keepers_file(address, RULES_FILE)
    return load_rules(own) if own is not None else MirrorRules()


def identity_for(stated: str, rules: Path | None = None) -> ExpectedIdentity:
    """Return the name that must have been signed.

    It is stated, or as the keeper's rules say in the file that is named. What the mirror itself says is not asked:
    whoever can write to it could say anything.
    """
    return ExpectedIdentity(stated, load_rules(rules).identities if rules is not None else ())
