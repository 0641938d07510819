"""The `http` smoke check: an HTTP(S) request gets the expected status, headers and body."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Contradiction,
    DraftedCheck,
    Drafting,
    Expectation,
    Subject,
    subject_of,
)
from pipeline.model.document_keys import ValueForm, document_key
from pipeline.model.probe import Unanswered
from pipeline.model.value_comparison import (
    RecordedText,
    mismatch,
    quote_answer,
    record_text,
    recorded_mismatch,
    unread_rest,
)
from pipeline.model.value_rules import Rule

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check


_DRAFTING = 1.0
"""Seconds for an answer from a port that may not speak HTTP."""


@dataclass(frozen=True, slots=True)
class HttpRequest(Subject):
    """One HTTP request to `port`, or to the unix socket at `socket`.

    `tls` speaks HTTPS; `trust` is a file in the image with the authorities that the certificate must come from ("": any
    certificate will do).
    """

    port: int = document_key(ValueForm.PORT, "the port", 0, example=8080)
    socket: str = document_key(ValueForm.PATH, "a unix socket in the image", "", example="/run/app.sock")
    path: str = document_key(ValueForm.TEXT, "path and query", "/", example="/healthz")
    method: str = document_key(ValueForm.VERBATIM, "the method", "GET")
    host: str = document_key(ValueForm.LINE, "the host that is asked for, also in TLS", "localhost")
    headers: tuple[tuple[str, str], ...] = document_key(
        ValueForm.NAMED_TEXTS, "headers more", (), example={"Accept": "text/html"}
    )
    body: str = document_key(ValueForm.TEXT, "what is sent", "")
    tls: bool = document_key(
        ValueForm.SWITCH, "speak HTTPS; any certificate will do unless `trust` is given", default=False
    )
    trust: str = document_key(
        ValueForm.PATH,
        "a file in the image with the authorities (PEM) that the certificate must come from",
        "",
        example="/etc/pki/tls/certs/ca-bundle.crt",
    )


@dataclass(frozen=True, slots=True)
class HttpAnswer(CheckAnswer):
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
    return f"{_place(check)}: {wrong}; response {seen.status}: {quote_answer(seen.body.text)}" if wrong else ""


def _place(check: Check) -> str:
    request = subject_of(HttpRequest, check)
    return f"{request.method} {request.path} at {request.socket or request.port}"


def _record(check: Check, seen: HttpAnswer) -> HttpAnswer:
    return replace(seen, body=record_text(check.expect.body, seen.body))


def _refuse(request: HttpRequest, given: frozenset[str]) -> Iterator[Contradiction]:
    if ("port" in given) == ("socket" in given):
        yield Contradiction(
            "check-contradiction", "a request must have one of 'port' and 'socket'", "write one of them"
        )
    line = "".join((request.method, request.path, request.host, *(part for pair in request.headers for part in pair)))
    if not request.path.startswith("/") or any(letter in line for letter in "\r\n") or " " in request.path:
        message = "invalid HTTP request: the path must start with '/', without spaces or line ends"
        yield Contradiction("request-malformed", message, "write path: /name")


def _plan(check: Check, request: HttpRequest) -> Check:
    return check.about(replace(request, tls=request.tls or bool(request.trust)))


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    reply = probe.request(subject_of(HttpRequest, check), deadline)
    found: list[tuple[str, RecordedText | None]] = []
    for name in dict.fromkeys(name for name, _ in check.expect.headers):
        values = reply.values(name)
        found.append((name, RecordedText.of(", ".join(values)) if values else None))
    unread = "" if reply.whole else unread_rest(check.expect.body, reply.body, "the body", "ask for a shorter one")
    return Attempt(HttpAnswer(reply.status, tuple(found), RecordedText.of(reply.body)), unread=unread)


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    for listener in probe.listeners():
        if listener.protocol == "tcp":
            yield _conversation(listener.port, probe)


def _conversation(port: int, probe: Probe) -> DraftedCheck:
    """Return an HTTP check if the port answers HTTP, else a check that it accepts connections."""
    try:
        reply = probe.request(HttpRequest(port), time.monotonic() + _DRAFTING)
    except Unanswered:
        return {"name": f"accepts connections on {port}", "port": port}
    expect: DraftedCheck = {"status": reply.status}
    types = reply.values("Content-Type")
    if types and types[0]:
        expect["headers"] = {"Content-Type": f"^{re.escape(types[0].partition(';')[0])}"}
    return {"name": f"answers on {port}", "http": {"port": port}, "expect": expect}


DECLARATION = CheckDeclaration(
    name="http",
    rank=40,
    meaning="a request by HTTP or HTTPS",
    example={"port": 8080, "path": "/healthz"},
    form=HttpRequest,
    title="http",
    prose="A request by HTTP/1.1; one of `port`, `socket`.",
    refuse=_refuse,
    plan=_plan,
    ready_meaning="a request that must be answered, with 200 unless `expect` says otherwise",
    ready_example={"port": 8080},
    beside=frozenset({"expect", "within"}),
    expects=frozenset({"status", "headers", "body"}),
    shows="an HTTP answer has",
    expected=Expectation(exit_code=None, status=(Rule(equals="200"),)),
    answer=HttpAnswer,
    ask=_ask,
    judge=_judge,
    record=_record,
    place=_place,
    latency_rank=1,
    draft=Drafting(2, _draft),
)
