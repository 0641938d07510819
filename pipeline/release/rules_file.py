"""The operator's rules that hold for a mirror: a given file's, else those in its root."""

from __future__ import annotations

from pathlib import Path

from pipeline.mirror.address import Address
from pipeline.model.rules import RULES_FILE, MirrorRules


def rules_for(address: Address, rules: Path | None = None, *, signs: bool) -> MirrorRules:
    """Load the mirror's rules from the file that is given, else from a directory mirror's root.

    `signs`: they decide what is signed there. Raises UsageError `rules-not-own`, `mirror-not-own`, RecipeError.
    """
    given = rules or address.form.operators_file(address, RULES_FILE, signs=signs)
    if given is None:
        return MirrorRules()
    # Here and not above: most mirrors have no rules, and reading them needs what reads recipes.
    from pipeline.recipes import load_rules

    return load_rules(given)
