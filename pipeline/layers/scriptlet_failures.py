"""Judge failed scriptlets by a recipe's rules: raise, or tolerate with a reason.

The rules do not change the layer's content, so a layer is cached with its failures, which are judged anew by the rules
of each recipe that uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import BuildError
from pipeline.model.scriptlets import (
    CRITICAL,
    ScriptletFailure,
    ScriptletMode,
    ScriptletRules,
    ToleratedFailure,
    Waiver,
)


def judge_failure(failure: ScriptletFailure, rules: ScriptletRules) -> ToleratedFailure:
    """Return a failure that the rules tolerate, with the reason.

    Raises BuildError with the failure's code if they do not tolerate it.
    """
    waiver = next((one for one in rules.waivers if _covers(one, failure)), None)
    if waiver is not None:
        return _tolerated(failure, waiver.reason)
    if rules.mode is ScriptletMode.RPM and failure.script not in CRITICAL and not failure.bound:
        return _tolerated(failure, "")
    raise BuildError(failure.code, failure.message, place=failure.package, hint=_failure_hint(failure, rules))


def _tolerated(failure: ScriptletFailure, reason: str) -> ToleratedFailure:
    return ToleratedFailure(
        failure.package, failure.script, failure.message, reason, code=failure.code, status=failure.status
    )


def unused_waivers(waivers: Sequence[Waiver], failures: Sequence[ScriptletFailure]) -> tuple[str, ...]:
    """Return a warning for each waiver that matches no failure."""
    return tuple(
        f"{waiver.place}: the waiver of {waiver.label} matches no failure: remove it"
        for waiver in waivers
        if not any(_covers(waiver, failure) for failure in failures)
    )


def _covers(waiver: Waiver, failure: ScriptletFailure) -> bool:
    return (waiver.package, waiver.script) == (failure.name, failure.script)


def _failure_hint(failure: ScriptletFailure, rules: ScriptletRules) -> str:
    waive = f"scriptlets: {{waive: [{{package: {failure.name}, script: {failure.script}, reason: …}}]}}"
    mode = "scriptlets: rpm"
    if rules.mode is ScriptletMode.RPM:
        must = (
            "a limit that ends a scriptlet is an error"
            if failure.bound
            else f"a failing %{failure.script} stops rpm too"
        )
        return f"{must}; add the package that it needs, exclude the package with 'exclude', or let it fail: `{waive}`"
    way = f"let it fail: `{waive}`"
    if failure.script not in CRITICAL and not failure.bound:
        way += f", or `{mode}`, which warns where rpm does"
    return (
        "every scriptlet must succeed; exclude the package with 'exclude', pin another version with 'pins', add the "
        f"package that the scriptlet needs, or {way}"
    )
