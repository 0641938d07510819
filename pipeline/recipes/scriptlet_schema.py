"""Models of the recipe key `scriptlets`: the rule for failing scriptlets, and waivers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.model.scriptlets import ScriptletMode, ScriptletName
from pipeline.recipes.fields import Line, Named, Strict, choice


class WaiverDocument(Strict):
    """Permission for one script of one package to fail.

    One that matches no failure is a warning.
    """

    package: Line = Field(description="the package's name", examples=["s6"])
    script: Annotated[ScriptletName, choice(ScriptletName, "a script")] = Field(
        description="which of its scripts and triggers", examples=["transfiletriggerin"]
    )
    reason: Line = Field(
        description="why it may fail; it stands in the report, on the product's page and in the provenance",
        examples=["no supervisor listens while an image is built"],
    )


class ScriptletsDocument(Strict):
    """The rule for scriptlets and triggers that fail.

    They fail when they end with another status than 0, or not in time. With `strict` the build ends, whichever it is.
    With `rpm` it ends where rpm does not install the package, after a failing `%pretrans` or `%pre`; a failure of any
    other is a warning of the build, in its report, on the product's page and in the provenance. What ends because of a
    limit of relbuild's, which rpm does not have, ends the build in both. `waive` lets a script fail in both.
    """

    mode: Annotated[ScriptletMode, choice(ScriptletMode, "a rule")] | None = Field(
        default=None, description="`strict` or `rpm`; default: `strict`", examples=["rpm"]
    )
    waive: list[WaiverDocument] = Field(
        default=[],
        description="scripts that may fail",
        examples=[[{"package": "s6", "script": "transfiletriggerin", "reason": "no supervisor here"}]],
    )


def _written_out(value: object) -> object:
    """Return the mapping that a mode alone is short for."""
    return {"mode": value} if isinstance(value, str) else value


ScriptletsValue = Annotated[
    ScriptletsDocument,
    Named("`strict`, `rpm` or [scriptlets](#scriptlets)"),
    BeforeValidator(_written_out, json_schema_input_type=ScriptletMode | ScriptletsDocument),
]
