"""Models of the `smoke` checks in a recipe document: a check, `ready`, `expect`.

The fields of each kind of check are made from its declaration in `pipeline.model.checks`.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from pipeline.model.checks import CHECK_KINDS
from pipeline.model.smoke import Misbehaviour, Variant
from pipeline.recipes.fields import (
    Duration,
    ImageUser,
    Line,
    Strict,
    TextValue,
    choice,
)
from pipeline.recipes.form_fields import kind_annotation
from pipeline.recipes.rule_documents import MatchRules


class ExpectDocument(Strict):
    """The answer that is expected.

    `exit_code`, `stdout`, `stdout_is` and `stderr` of a command, `stdout` and `stdout_is` of a port or socket,
    `status`, `headers` and `body` of HTTP. Patterns are Python regular expressions, searched for in the text; one that
    takes more than 5 s of processor time counts as wrong.
    """

    exit_code: Annotated[int, Field(ge=0, le=255)] | None = Field(
        default=0, description="the command's exit status; null: any"
    )
    stdout: MatchRules | None = Field(
        default=None, description="what it prints, or what a port answers", examples=["^1$"]
    )
    stdout_is: TextValue | None = Field(default=None, description="all that it prints, without white space at the ends")
    stderr: MatchRules | None = Field(default=None, description="its error output")
    status: MatchRules | None = Field(
        default=None, description="the status of an HTTP answer; default: 200", examples=[{"min": 200, "max": 299}]
    )
    headers: dict[Line, MatchRules] = Field(
        default={}, description="headers of an HTTP answer, by name", examples=[{"Content-Type": "^text/html"}]
    )
    body: MatchRules | None = Field(
        default=None,
        description="the body of an HTTP answer",
        examples=[{"json": "$.status", "is": "green"}],
    )


_ANNOTATIONS: dict[str, Any] = {kind.name: kind_annotation(kind) for kind in CHECK_KINDS}
"""The type of the value of each kind of check."""


class _Named(Strict):
    name: Line = Field(description="what the check shows, for reports", examples=["answers"])


def _kind_field(name: str, meaning: str, example: object) -> tuple[Any, Any]:
    examples = None if example is None else [example]
    return _ANNOTATIONS[name] | None, Field(default=None, description=meaning, examples=examples)


if TYPE_CHECKING:
    _CheckFields = _Named
    _ReadyFields = Strict
else:
    _CheckFields = create_model(
        "_CheckFields",
        __base__=_Named,
        **{kind.name: _kind_field(kind.name, kind.meaning, kind.example) for kind in CHECK_KINDS},
    )
    _ReadyFields = create_model(
        "_ReadyFields",
        __base__=Strict,
        **{
            kind.name: _kind_field(kind.name, kind.ready_meaning, kind.ready_example)
            for kind in CHECK_KINDS
            if kind.ready_meaning
        },
    )


class ReadyDocument(_ReadyFields):
    """The sign that an instance can be used: exactly one kind."""

    expect: ExpectDocument | None = Field(default=None, description="what the answer must show")
    send: TextValue | None = Field(default=None, description="what is sent to `port` or `socket`")
    user: ImageUser | None = Field(default=None, description="who runs `command`; default: the image's user")
    within: Duration = Field(default=60_000, description="how long it may take", examples=["60s"])


_KINDS = "One question to a running instance, of exactly one kind.\n\n" + textwrap.fill(
    f"The kinds are {', '.join(f'`{kind.name}`' for kind in CHECK_KINDS)}. All but `command` need nothing in the "
    "image. Each is asked again until it is met or `within` has passed. Texts may hold templates that use `values`, "
    "so that a check follows the configuration.",
    116,
)


class CheckDocument(_CheckFields):
    __doc__ = _KINDS

    expect: ExpectDocument | None = Field(
        default=None, description="what `command`, `port`, `socket` or `http` must show"
    )
    stdin: TextValue | None = Field(default=None, description="what `command` reads")
    user: ImageUser | None = Field(default=None, description="who runs `command`; default: the image's user")
    send: TextValue | None = Field(
        default=None, description="what is sent to `port` or `socket`", examples=["PING\r\n"]
    )
    within: Duration = Field(
        default=10_000, description="how long until it must be met; a command is asked again until then"
    )


class NeighboursDocument(Strict):
    """Many instances at once, of which one misbehaves.

    Only asked with `--full`, because it takes a while. Each latency is that of the first `http` check (else of the
    first `port` check, else of `ready`) of the recipe. Each misbehaviour uses all that the limits leave it, so
    `allocate` needs a limit on memory, and `fork` one on pids.
    """

    count: Annotated[int, Field(ge=2, le=100)] = Field(default=20, description="how many run")
    misbehave: list[Annotated[Misbehaviour, choice(Misbehaviour, "a way to misbehave")]] = Field(
        default=list(Misbehaviour),
        description="what the first one does, one after the other: `spin` on all cores, `allocate` memory, `fork`, "
        "`flood` the network",
    )
    factor: Annotated[float, Field(gt=1, le=1000)] = Field(
        default=10.0,
        strict=False,
        description="how many times their quiet latency (median, and 99th percentile) the others may take meanwhile",
    )
    floor: Duration = Field(default=5, description="lower bound: latencies below this count as this")
    lasting: Duration = Field(default=2_000, description="how long each is measured")


Variants = list[Annotated[Variant, choice(Variant, "a variant")]]
