"""Conversion of a smoke report to JSON values and back."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import VerificationError
from pipeline.model.json_form import read_json, refuse_newer, to_json
from pipeline.model.report import SmokeReport

REPORT_SCHEMA = 3

_JSON_ONLY = ("schema", "passed")
"""Members that are for those who read the JSON by themselves."""

_REQUIRED = frozenset({"failure", "neighbours", "asked", "config", "older"})
"""Members that every report of this schema has, though the noun has defaults for them.

None is guessed: a report without its failure would read as one that has none."""


def report_json(report: SmokeReport) -> dict[str, object]:
    """Return a report as JSON values, from which `read_report` makes an equal one."""
    value = to_json(report)
    assert isinstance(value, dict)
    for instance in value["instances"]:
        instance["measured"] = dict(instance["measured"])
    return {"schema": REPORT_SCHEMA, "passed": report.passed, **value}


def read_report(value: Mapping[str, object]) -> SmokeReport:
    """Read a smoke report that `report_json` wrote, in this release or another.

    `passed` is not believed: it is computed again from the answers.

    Raises VerificationError `report-malformed`, `format-newer`.
    """
    try:
        schema = value["schema"]
        refuse_newer("the report of a smoke test", schema, REPORT_SCHEMA)
        if schema != REPORT_SCHEMA:
            raise ValueError(f"unknown schema {schema!r}; this relbuild reads {REPORT_SCHEMA}")
        if lacking := sorted(_REQUIRED - value.keys()):
            raise ValueError(f"$ lacks {', '.join(lacking)}")
        instances = value["instances"]
        if not isinstance(instances, list):
            raise ValueError("instances is not an array")
        inner = {key: member for key, member in value.items() if key not in _JSON_ONLY}
        return read_json(SmokeReport, {**inner, "instances": [_instance(instance) for instance in instances]})
    except (KeyError, ValueError, RecursionError) as error:
        raise VerificationError("report-malformed", f"invalid smoke report: {error}") from error


def _instance(value: object) -> dict[str, object]:
    if not isinstance(value, dict) or not isinstance(value.get("measured"), dict):
        raise ValueError("an instance or its measurements is not an object")
    return {**value, "measured": [[key, figure] for key, figure in sorted(value["measured"].items())]}
