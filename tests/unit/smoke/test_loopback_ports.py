"""Exposed ports on the loopback alone: which are noted, and the sentence on each."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from pipeline.model.checks import CheckKind
from pipeline.model.checks.listening_check import ListeningFacts
from pipeline.model.image import ImageConfig
from pipeline.model.probe import ListeningSocket, Unanswered
from pipeline.model.report import LoopbackPort, SmokeReport
from pipeline.model.smoke import Check, SmokePlan
from pipeline.sandbox import LaunchedInstance
from pipeline.smoke import junit_report, loopback_warnings, procfs, read_report, report_json
from pipeline.smoke.instance_probe import InstanceProbe
from pipeline.smoke.loopback_ports import ADDRESSES_MOST, find_loopback_ports, looks_at_ports
from tests.support.tested_images import image, report

LISTENS, CONNECTED = "0A", "01"
NOBODY = "00000000:0000"
V4, OTHER_V4, ANY4, OWN = "0100007F", "0A01007F", "00000000", "0500000A"
V6, ANY6 = f"{'0' * 24}01000000", "0" * 32
MAPPED, MAPPED_OWN = f"{'0' * 16}FFFF00000100007F", f"{'0' * 16}FFFF00000500000A"
CONFIG = ImageConfig("amd64", 0, exposed_ports=("80/tcp", "81", "53/udp"))


@pytest.mark.parametrize(
    ("bound", "noted"),
    [
        ([("tcp", V4)], ("127.0.0.1",)),
        ([("tcp", OTHER_V4)], ("127.0.1.10",)),
        ([("tcp6", V6)], ("::1",)),
        ([("tcp6", MAPPED)], ("::ffff:127.0.0.1",)),
        ([("tcp", V4), ("tcp6", V6)], ("127.0.0.1", "::1")),
        ([("tcp", V4), ("tcp", OTHER_V4), ("tcp6", MAPPED)], ("127.0.0.1", "127.0.1.10", "::ffff:127.0.0.1")),
        ([("tcp", V4), ("tcp6", ANY6)], ()),
        ([("tcp", ANY4), ("tcp6", V6)], ()),
        ([("tcp", V4), ("tcp", OWN)], ()),
        ([("tcp", V4), ("tcp6", MAPPED_OWN)], ()),
        ([("udp", V4)], ()),
        ([("udp", ANY4), ("tcp", V4)], ("127.0.0.1",)),
        ([], ()),
    ],
)
def test_an_exposed_port_is_noted_that_has_no_other_address(
    monkeypatch: pytest.MonkeyPatch, bound: list[tuple[str, str]], noted: tuple[str, ...]
) -> None:
    def sockets(pid: int, table: str) -> list[tuple[str, int, str, str]]:
        state = LISTENS if table.startswith("tcp") else "07"
        return [(address, 80, state, NOBODY) for where, address in bound if where == table]

    monkeypatch.setattr(procfs, "_sockets", sockets)
    found = find_loopback_ports(CONFIG, procfs.list_listeners(_instance()))
    assert found == ((LoopbackPort(80, noted),) if noted else ())


def test_what_is_not_exposed_or_only_connected_is_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        "tcp": [(V4, 81, LISTENS, NOBODY), (V4, 80, CONNECTED, f"{V4}:9999"), (V4, 8080, LISTENS, NOBODY)],
        "udp": [(V4, 53, "07", NOBODY)],
    }
    monkeypatch.setattr(procfs, "_sockets", lambda pid, table: tables.get(table, []))
    assert find_loopback_ports(CONFIG, procfs.list_listeners(_instance())) == (LoopbackPort(81, ("127.0.0.1",)),)


def test_of_a_port_at_thousands_of_addresses_a_few_are_recorded() -> None:
    addresses = tuple(f"127.0.{number >> 8}.{number & 255}" for number in range(5000))
    (found,) = find_loopback_ports(CONFIG, [ListeningSocket(80, "tcp", True, addresses)])
    assert found == LoopbackPort(80, addresses[:ADDRESSES_MOST], 5000 - ADDRESSES_MOST)
    (said,) = loopback_warnings(_noting((found,)), "tiny")
    assert "listens on 127.0.0.0, 127.0.0.1, 127.0.0.2, 127.0.0.3 and 4996 more only, where" in said


def test_an_instance_that_cannot_be_looked_into_has_no_answer() -> None:
    with pytest.raises(Unanswered):
        InstanceProbe(_instance(pid=-1), image()).listeners()


def test_ports_are_looked_at_unless_a_check_judges_them() -> None:
    listening = Check("listens", CheckKind.LISTENING, 1000, subject=ListeningFacts())
    connects = Check("connects", CheckKind.PORT, 1000, port=80)
    assert looks_at_ports(SmokePlan(connects, (connects,)), CONFIG)
    assert looks_at_ports(SmokePlan(None, (connects,)), CONFIG)
    assert not looks_at_ports(SmokePlan(connects, (connects, listening)), CONFIG)
    assert not looks_at_ports(SmokePlan(listening, (connects,)), CONFIG)
    for ports in ((), ("53/udp",)):
        assert not looks_at_ports(SmokePlan(connects), replace(CONFIG, exposed_ports=ports))


def test_a_warning_names_image_port_addresses_and_the_way_out() -> None:
    found = _noting((LoopbackPort(80, ("127.0.0.1", "::1")), LoopbackPort(81, ("127.0.0.1",))))
    assert loopback_warnings(found, "tiny") == (
        "tiny: the exposed port 80/tcp listens on 127.0.0.1, ::1 only, where nobody outside of an instance reaches it: "
        "let the server listen on 0.0.0.0 or ::, or do not expose the port; the check 'listening: exposed' tests that",
        "tiny: the exposed port 81/tcp listens on 127.0.0.1 only, where nobody outside of an instance reaches it: "
        "let the server listen on 0.0.0.0 or ::, or do not expose the port; the check 'listening: exposed' tests that",
    )


def test_there_is_one_warning_of_all_instances_and_it_names_those_that_differ() -> None:
    local = (LoopbackPort(80, ("127.0.0.1",)),)
    (said,) = loopback_warnings(_noting(local, (), local), "tiny")
    assert "listens on 127.0.0.1 only in tiny-1, tiny-read-only, where" in said
    (said,) = loopback_warnings(_noting(local, None, (LoopbackPort(80, ("::1",)),)), "tiny")
    assert "listens on 127.0.0.1, ::1 only, where" in said
    assert loopback_warnings(_noting((), None), "tiny") == ()


def test_it_is_in_the_report_and_changes_no_verdict() -> None:
    found = _noting((LoopbackPort(80, ("127.0.0.1",), 2),))
    assert found.passed
    assert read_report(json.loads(json.dumps(report_json(found)))) == found
    assert b'name="loopback_only.80/tcp" value="127.0.0.1 and 2 more"' in junit_report(found, "tiny")


def test_a_report_from_before_ports_were_looked_at_tells_nothing_of_them() -> None:
    value = json.loads(json.dumps(report_json(_noting(()))))
    for instance in value["instances"]:
        del instance["loopback_ports"]
    older = read_report(value)
    assert older == report(image()) and older.passed
    assert [one.loopback_ports for one in older.instances] == [None] * 4
    assert loopback_warnings(older, "tiny") == ()


def _instance(pid: int | None = None) -> LaunchedInstance:
    return cast(LaunchedInstance, SimpleNamespace(pid=os.getpid() if pid is None else pid, alive=True))


def _noting(*ports: tuple[LoopbackPort, ...] | None) -> SmokeReport:
    """A report that passes; each of its first instances notes these ports, the others were not looked at."""
    plain = report(image())
    noted = [replace(one, loopback_ports=found) for one, found in zip(plain.instances, ports, strict=False)]
    return replace(plain, instances=(*noted, *plain.instances[len(noted) :]))
