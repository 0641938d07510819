"""The plan of a smoke test as JSON and back, and its digest.

Where in a recipe it is asked does not matter.
"""

from __future__ import annotations

from pipeline.digest import Digest, identity
from pipeline.errors import VerificationError
from pipeline.model.json_form import from_json, to_json
from pipeline.model.smoke import SmokePlan

_PLAN_VERSION = 3


def plan_value(plan: SmokePlan) -> object:
    """JSON values that `read_plan` makes the same plan of (but for `place`)."""
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
    """A name for what is asked."""
    return identity("smoke-plan", _PLAN_VERSION, plan=plan_value(plan))
