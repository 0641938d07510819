"""Load the mirror's rules and the expected signing identity that options give."""

from __future__ import annotations

from pathlib import Path

from pipeline.mirror.address import Address
from pipeline.mirror.signed_identity import ExpectedIdentity
from pipeline.model.rules import MirrorRules

RULES_FILE = "rules.yaml"
"""The file of the mirror's rules in the root of a directory mirror."""


def rules_for(address: Address, rules: Path | None) -> MirrorRules:
    """Load the mirror's rules from the file that is given, else from a directory mirror's root."""
    given = rules or address.form.operators_file(address, RULES_FILE)
    return _load(given) if given is not None else MirrorRules()


def identity_for(stated: str, rules: Path | None = None) -> ExpectedIdentity:
    """Return the settings for the identity under which images must be signed.

    That is the stated one, or follows from the identities in the given rules file. Rules on the mirror itself are not
    read, because anyone who can write to the mirror can write them.
    """
    return ExpectedIdentity(stated, _load(rules).identities if rules is not None else ())


def _load(rules: Path) -> MirrorRules:
    # Here and not above: most mirrors have no rules, and reading them needs what reads recipes.
    from pipeline.recipes import load_rules

    return load_rules(rules)
