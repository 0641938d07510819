"""The `socket` smoke check: a unix socket accepts a connection and answers as expected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration
from pipeline.model.checks import port_check
from pipeline.model.document_keys import ValueForm

if TYPE_CHECKING:
    from pipeline.model.smoke import Check


def _plan(check: Check, path: str) -> Check:
    return replace(check, socket=path)


DECLARATION = CheckDeclaration(
    name="socket",
    rank=30,
    meaning="a unix socket that is connected to",
    example="/run/app.sock",
    form=ValueForm.PATH,
    plan=_plan,
    ready_meaning="a unix socket that must accept connections",
    beside=port_check.DECLARATION.beside,
    expects=port_check.DECLARATION.expects,
    shows="what a socket answers is",
    answer=port_check.DECLARATION.answer,
    ask=port_check.DECLARATION.ask,
    judge=port_check.DECLARATION.judge,
    record=port_check.DECLARATION.record,
    place=port_check.DECLARATION.place,
    latency_rank=3,
)
