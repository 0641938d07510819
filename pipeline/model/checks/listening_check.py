"""Checks of the sockets that listen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration, subject_of

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


SOCKETS_MOST = 4096
"""Sockets that listen, likewise."""


@dataclass(frozen=True, slots=True)
class ListeningFacts:
    """Sockets that may listen; any other is wrong.

    `ports` (`8080/tcp`; None: the image's exposed ones) listen on more than the loopback; those in `local` may be
    there, on the loopback only.
    """

    ports: tuple[str, ...] | None = None
    local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenSocket:
    """A socket that listens: `8080/tcp`; `local`: on the loopback only."""

    port: str
    local: bool


@dataclass(frozen=True, slots=True)
class ListeningAnswer:
    """All sockets that listen."""

    sockets: tuple[SeenSocket, ...]


def _judge(check: Check, seen: ListeningAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts, sockets = subject_of(ListeningFacts, check), seen.sockets
    wanted = config.exposed_ports if facts.ports is None else facts.ports
    reachable = {socket.port for socket in sockets if not socket.local}
    local = {socket.port for socket in sockets if socket.local}
    wrong = [f"nothing listens on {port}" for port in wanted if port not in reachable | local]
    wrong += [f"{port} is on the loopback only, out of reach" for port in wanted if port in local]
    wrong += [f"{port} listens too" for port in sorted(reachable - set(wanted))]
    wrong += [f"{port} listens too, on the loopback" for port in sorted(local - set(wanted) - set(facts.local))]
    return "; ".join(wrong)


DECLARATION = CheckDeclaration(ListeningAnswer, _judge, subject=ListeningFacts)
