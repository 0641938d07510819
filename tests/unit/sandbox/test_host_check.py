"""Findings of `doctor` about this machine."""

from __future__ import annotations

from pipeline.sandbox.host_check import lacking_capabilities


def test_root_with_all_capabilities_lacks_none() -> None:
    assert lacking_capabilities("Name:\tpython\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n") == ()


def test_capabilities_that_a_container_takes_away_are_named() -> None:
    # What podman leaves by default: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
    # NET_BIND_SERVICE, SYS_CHROOT, SETFCAP.
    assert lacking_capabilities("CapEff:\t00000000800405fb\n") == ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")


def test_root_without_capabilities_lacks_each() -> None:
    assert lacking_capabilities("CapEff:\t0000000000000000\n")[-1] == "CAP_SETFCAP"
    assert len(lacking_capabilities("CapEff:\t0000000000000000\n")) == 10
