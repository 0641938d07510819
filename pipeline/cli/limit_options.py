"""Command-line options for limits, generated from their declarations, and their parsing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, assert_never

import typer

from pipeline.cli.app import CommandContext
from pipeline.errors import UsageError
from pipeline.model.limits import LIMITS, AnyLimit, Limits
from pipeline.model.quantities import Malformed, Quantity, WholeNumber

_OFFERED = tuple(limit for limit in LIMITS if limit.option)

RequestedLimits = Mapping[str, str | int | None]
"""Limits as a person writes them on the command line, by the limit's name; None: not written."""


def with_limits(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of limits, in place of its parameter `asked`."""
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def filled(context: CommandContext, **given: Any) -> int:  # noqa: ANN401  typer gives each by its own type
        return command(context, asked={limit.name: given.pop(_parameter(limit)) for limit in _OFFERED}, **given)

    parameters = [
        option
        for parameter in own.parameters.values()
        for option in (_options() if parameter.name == "asked" else [parameter])
    ]
    vars(filled)["__signature__"] = own.replace(parameters=parameters)
    filled.__annotations__ = {one.name: one.annotation for one in parameters}
    return filled


def limits_of(limits: Limits, asked: RequestedLimits) -> Limits:
    """Return the recipe's limits, overridden by those of options. Raises UsageError."""
    changes: dict[str, int | None] = {}
    try:
        for limit in _OFFERED:
            value = asked.get(limit.name)
            if value is not None:
                changes[limit.member] = limit.form.parse(value) if isinstance(limit.form, Quantity) else int(value)
    except Malformed as error:
        raise UsageError(error.code, str(error), hint=error.hint) from error
    return limits.changed(enforce=False, **changes)


def _parameter(limit: AnyLimit) -> str:
    """Return the name of the option's parameter, distinct from others such as `volume`."""
    return f"limit_{limit.name}"


def _options() -> list[inspect.Parameter]:
    found = []
    for limit in _OFFERED:
        flag = f"--{limit.name.replace('_', '-')}"
        match limit.form:
            case Quantity():
                kind: Any = Annotated[str | None, typer.Option(flag, help=limit.option)]
            case WholeNumber(least, _):
                kind = Annotated[int | None, typer.Option(flag, min=least, help=limit.option)]
            case other:
                assert_never(other)
        found.append(
            inspect.Parameter(_parameter(limit), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        )
    return found
