"""Find exposed TCP ports that listen on the loopback only, and warn of them.

They are no failure. Checks connect to an instance's loopback, so they pass on a server that nobody else reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.model.checks import CheckKind
from pipeline.model.checks.listening_check import DECLARATION as LISTENING
from pipeline.model.image import ImageConfig
from pipeline.model.probe import ListeningSocket
from pipeline.model.report import LoopbackPort, SmokeReport
from pipeline.model.smoke import SmokePlan
from pipeline.progress import Progress

ADDRESSES_MOST = 4
"""Addresses of a port that are recorded: an image can listen on millions of 127.0.0.0/8."""


def looks_at_ports(plan: SmokePlan, config: ImageConfig) -> bool:
    """Return whether an instance's ports are looked at.

    They are if the image exposes any by TCP, and no `listening` check of the plan judges them.
    """
    kind = CheckKind(LISTENING.name)
    asked = (*plan.checks, *((plan.ready,) if plan.ready else ()))
    return bool(config.tcp_ports) and all(check.kind is not kind for check in asked)


def find_loopback_ports(config: ImageConfig, sockets: Iterable[ListeningSocket]) -> tuple[LoopbackPort, ...]:
    """Return the exposed TCP ports among `sockets` that listen on the loopback only, sorted."""
    exposed = frozenset(config.tcp_ports)
    local = sorted(one for one in sockets if one.protocol == "tcp" and one.local and one.port in exposed)
    return tuple(
        LoopbackPort(one.port, one.addresses[:ADDRESSES_MOST], max(0, len(one.addresses) - ADDRESSES_MOST))
        for one in local
    )


def list_addresses(addresses: Iterable[str], more: int) -> str:
    """List addresses in a sentence: `127.0.0.1, ::1 and 3 more`."""
    return f"{', '.join(addresses)}{f' and {more} more' if more else ''}"


def warn_of_loopback(report: SmokeReport, name: str, progress: Progress) -> None:
    """Warn of each port that the report, new or recalled, notes of the image called `name`."""
    for text in loopback_warnings(report, name):
        progress.warn(text)


def loopback_warnings(report: SmokeReport, name: str) -> tuple[str, ...]:
    """Return a sentence on each port that a report notes, of the image called `name`."""
    return tuple(_warnings(report, name))


def _warnings(report: SmokeReport, name: str) -> Iterator[str]:
    noted = [(instance.name, port) for instance in report.instances for port in instance.loopback_ports or ()]
    looked = {instance.name for instance in report.instances if instance.loopback_ports is not None}
    for number in sorted({port.port for _, port in noted}):
        found = {instance: port for instance, port in noted if port.port == number}
        addresses = sorted({address for port in found.values() for address in port.addresses})
        more = max(port.more for port in found.values())
        where = list_addresses(addresses, more)
        which = "" if found.keys() == looked else f" in {', '.join(found)}"
        yield (
            f"{name}: the exposed port {number}/tcp listens on {where} only{which}, where nobody outside of an instance"
            " reaches it: let the server listen on 0.0.0.0 or ::, or do not expose the port;"
            " the check 'listening: exposed' tests that"
        )
