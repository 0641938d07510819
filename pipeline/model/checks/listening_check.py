"""The `listening` smoke check: the expected ports listen, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    DraftedCheck,
    Drafting,
    NoAnswer,
    ShortForm,
    Subject,
    subject_of,
)
from pipeline.model.document_keys import ValueForm, document_key

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import ListeningSocket, Probe
    from pipeline.model.smoke import Check


SOCKETS_MOST = 4096
"""Sockets of an instance that are recorded."""


@dataclass(frozen=True, slots=True)
class ListeningFacts(Subject):
    """Sockets that may listen; any other is wrong.

    `ports` (`8080/tcp`; None: the image's exposed ones) must listen on more than the loopback; those in `local` may
    listen on the loopback only.
    """

    ports: tuple[str, ...] | None = document_key(
        ValueForm.PORTS, "ports that others can reach; default: `image.exposed_ports`", None, example=[8080]
    )
    local: tuple[str, ...] = document_key(ValueForm.PORTS, "ports that may listen, on the loopback only", ())


@dataclass(frozen=True, slots=True)
class SeenSocket:
    """A socket that listens: `8080/tcp`; `local`: on the loopback only."""

    port: str
    local: bool


@dataclass(frozen=True, slots=True)
class ListeningAnswer(CheckAnswer):
    """All sockets that listen."""

    sockets: tuple[SeenSocket, ...]


def _judge(check: Check, seen: ListeningAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts, sockets = subject_of(ListeningFacts, check), seen.sockets
    wanted = config.exposed_ports if facts.ports is None else facts.ports
    reachable = {socket.port for socket in sockets if not socket.local}
    local = {socket.port for socket in sockets if socket.local}
    wrong = [f"nothing listens on {port}" for port in wanted if port not in reachable | local]
    wrong += [f"{port} listens on the loopback only" for port in wanted if port in local]
    wrong += [f"{port} listens, but is not listed" for port in sorted(reachable - set(wanted))]
    wrong += [
        f"{port} listens on the loopback, but is not listed" for port in sorted(local - set(wanted) - set(facts.local))
    ]
    return "; ".join(wrong)


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    seen = probe.listeners()
    if len(seen) > SOCKETS_MOST:
        return Attempt(NoAnswer(f"the instance listens on {len(seen)} sockets, more than the limit of {SOCKETS_MOST}"))
    return Attempt(ListeningAnswer(tuple(SeenSocket(str(listener), listener.local) for listener in seen)))


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    seen = probe.listeners()
    local = [_port(listener) for listener in seen if listener.local]
    ports = [_port(listener) for listener in seen if not listener.local]
    wanted: object = {"ports": ports, "local": local} if local else ports
    yield {"name": "listens on its ports and no other", "listening": wanted}


def _port(listener: ListeningSocket) -> object:
    return listener.port if listener.protocol == "tcp" else str(listener)


DECLARATION = CheckDeclaration(
    name="listening",
    rank=80,
    meaning="`exposed`, a list of ports, or the mapping: these and no other",
    example="exposed",
    form=ListeningFacts,
    title="listening",
    prose="Sockets that listen (TCP) or are bound (UDP): these and no other.\n\n"
    "`exposed`, or a list of ports, is short for this mapping.",
    short=ShortForm("exposed", "ports"),
    answer=ListeningAnswer,
    ask=_ask,
    judge=_judge,
    draft=Drafting(1, _draft),
)
