"""Checks that ask by HTTP."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration, subject_of
from pipeline.model.value_comparison import (
    RecordedText,
    mismatch,
    quote_answer,
    record_text,
    recorded_mismatch,
)

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request to `port`, or to the unix socket at `socket`.

    `tls` speaks HTTPS; `trust` is a file in the image with the authorities that the certificate must come from ("": any
    certificate will do).
    """

    port: int = 0
    socket: str = ""
    path: str = "/"
    method: str = "GET"
    host: str = "localhost"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    tls: bool = False
    trust: str = ""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, body, and the headers that were asked for (None: it is not there)."""

    status: int
    headers: tuple[tuple[str, RecordedText | None], ...]
    body: RecordedText


def _judge(check: Check, seen: HttpAnswer, config: ImageConfig, ready: Check | None) -> str:
    wrong = mismatch(check.expect.status, str(seen.status), "the status", tell=True)
    headers = dict(seen.headers)
    for name, rules in check.expect.headers:
        value = headers.get(name)
        wrong = wrong or (
            f"there is no header '{name}'"
            if value is None
            else recorded_mismatch(rules, value, f"header '{name}'", tell=True)
        )
    wrong = wrong or recorded_mismatch(check.expect.body, seen.body, "the body")
    return f"{_place(check)}: {wrong}; it said {seen.status}: {quote_answer(seen.body.text)}" if wrong else ""


def _place(check: Check) -> str:
    request = subject_of(HttpRequest, check)
    return f"{request.method} {request.path} at {request.socket or request.port}"


def _record(check: Check, seen: HttpAnswer) -> HttpAnswer:
    return replace(seen, body=record_text(check.expect.body, seen.body))


DECLARATION = CheckDeclaration(
    HttpAnswer,
    _judge,
    subject=HttpRequest,
    record=_record,
    place=_place,
    beside=frozenset({"expect", "within"}),
    expects=frozenset({"status", "headers", "body"}),
    shows="an HTTP answer has",
)
