"""Conversion of a smoke plan to JSON values and back, and its digest.

A check's place in the recipe is not part of it.
"""

from __future__ import annotations

from pipeline.digest import Digest, identity
from pipeline.errors import VerificationError
from pipeline.model.json_form import from_json, to_json
from pipeline.model.smoke import SmokePlan

_PLAN_VERSION = 3


def plan_value(plan: SmokePlan) -> object:
    """Return a plan as JSON values, from which `read_plan` makes an equal one (but for `place`)."""
    return to_json(plan)


def read_plan(value: object) -> SmokePlan:
    """Read what `plan_value` wrote.

    Raises VerificationError `plan-malformed`.
    """
    try:
        return from_json(SmokePlan, value)
    except ValueError as error:
        raise VerificationError("plan-malformed", f"invalid smoke test plan: {error}") from error


def plan_digest(plan: SmokePlan) -> Digest:
    """Return the digest that identifies a plan."""
    return identity("smoke-plan", _PLAN_VERSION, plan=plan_value(plan))
