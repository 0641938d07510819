"""Data classes for a recipe's rules on failing scriptlets, and for the failures."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from pipeline.lazy_dataclasses import dataclass


class ScriptletMode(StrEnum):
    """The rule for failing scriptlets: every failure ends the build, or only one that stops rpm."""

    STRICT = "strict"
    RPM = "rpm"


class ScriptletName(StrEnum):
    """Names, as in a spec file, of the scriptlets and triggers that an installation runs."""

    PRETRANS = "pretrans"
    PRE = "pre"
    POST = "post"
    POSTTRANS = "posttrans"
    TRIGGERPREIN = "triggerprein"
    TRIGGERIN = "triggerin"
    FILETRIGGERIN = "filetriggerin"
    TRANSFILETRIGGERIN = "transfiletriggerin"


CRITICAL = frozenset({ScriptletName.PRETRANS, ScriptletName.PRE})
"""Scriptlets whose failure keeps rpm from installing the package (rpm 4.18 and 6.0, lib/rpmscript.c:
RPMSCRIPT_FLAG_CRITICAL, of those that an installation runs); of any other, rpm only warns."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """A recipe's permission for one script of one package to fail, with the reason.

    `package` is a package's name, `place` the waiver's position in the recipe.
    """

    package: str
    script: ScriptletName
    reason: str
    place: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """The script as messages name it: `%post of nginx`."""
        return f"%{self.script} of {self.package}"


@dataclass(frozen=True, slots=True)
class ScriptletRules:
    """The rules of a recipe for failing scriptlets."""

    mode: ScriptletMode = ScriptletMode.STRICT
    waivers: tuple[Waiver, ...] = ()


@dataclass(frozen=True, slots=True)
class ScriptletFailure:
    """A failed script, before it is judged by a recipe's rules.

    `package` is a NEVRA and `name` the package's name. `message` tells how the script ended and what it printed, `code`
    is the error code if it is not tolerated. `bound`: one of relbuild's limits ended it, which rpm does not have.
    `status` is its exit status, None if it was not started or was stopped for its time.
    """

    package: str
    name: str
    script: ScriptletName
    code: str
    message: str
    bound: bool = False
    status: int | None = None


@dataclass(frozen=True, slots=True)
class ToleratedFailure:
    """A failed script that the recipe's rules tolerate.

    `package` is a NEVRA. `reason` is the waiver's, "" if tolerated because rpm would only warn. `message` has what the
    script printed, which may be another at each run; documents that depend on the inputs alone leave it out and have
    the `code` and the exit `status` (as in ScriptletFailure).
    """

    package: str
    script: ScriptletName
    message: str = ""
    reason: str = ""
    code: str = "scriptlet-failed"
    status: int | None = None

    @property
    def outcome(self) -> str:
        """Error code and status, without the script's own words."""
        return self.code if self.status is None else f"{self.code}: status {self.status}"

    @property
    def sentence(self) -> str:
        """The failure and the reason, as the text of a warning."""
        why = f"waived: {self.reason}" if self.reason else "scriptlets: rpm"
        return f"{self.message} ({why})"
