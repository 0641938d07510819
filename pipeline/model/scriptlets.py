"""The rules of a recipe for scriptlets that fail, and what failed and was let through."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ScriptletMode(StrEnum):
    """The rule for scriptlets that fail: each ends the build, or only those that stop rpm."""

    STRICT = "strict"
    RPM = "rpm"


class ScriptletName(StrEnum):
    """Names of scriptlets and triggers that an installation runs, as a spec file has them."""

    PRETRANS = "pretrans"
    PRE = "pre"
    POST = "post"
    POSTTRANS = "posttrans"
    TRIGGERPREIN = "triggerprein"
    TRIGGERIN = "triggerin"
    FILETRIGGERIN = "filetriggerin"
    TRANSFILETRIGGERIN = "transfiletriggerin"


CRITICAL = frozenset({ScriptletName.PRETRANS, ScriptletName.PRE})
"""Those whose failure keeps rpm from installing the package (rpm 4.18 and 6.0, lib/rpmscript.c: RPMSCRIPT_FLAG_CRITICAL
among those that an installation runs); a failure of any other is a warning."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """A recipe's permission for one script of one package to fail, with the reason.

    `package` is a package's name. `place` is where in a recipe it stands.
    """

    package: str
    script: ScriptletName
    reason: str
    place: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """It as people call it: `%post of nginx`."""
        return f"%{self.script} of {self.package}"


@dataclass(frozen=True, slots=True)
class ScriptletRules:
    """The rules of a recipe for scriptlets that fail."""

    mode: ScriptletMode = ScriptletMode.STRICT
    waivers: tuple[Waiver, ...] = ()


@dataclass(frozen=True, slots=True)
class ScriptletFailure:
    """A script that ended badly, of which the rest of the build goes on.

    `package` is a NEVRA and `name` the package's name; `message` says how it ended and what it said, `code` is the
    error's. `bound`: a limit of relbuild's ended it, of which rpm has none.
    """

    package: str
    name: str
    script: ScriptletName
    code: str
    message: str
    bound: bool = False


@dataclass(frozen=True, slots=True)
class ToleratedFailure:
    """A script that failed in the image and that the recipe let through.

    `package` is a NEVRA, `reason` the waiver's, "" where it was let through because rpm would only warn.
    """

    package: str
    script: ScriptletName
    message: str
    reason: str = ""

    @property
    def sentence(self) -> str:
        """It in words, for a warning."""
        why = f"waived: {self.reason}" if self.reason else "scriptlets: rpm"
        return f"{self.message} ({why})"
