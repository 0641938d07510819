"""Traced commands: what they give up before they start, and whom they may change."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.sandbox.traced.account_calls import ACCOUNT_CALLS

SHOW = """
import ctypes
from pipeline.sandbox.traced.traced_child import _drop_capabilities
_drop_capabilities(ctypes.CDLL(None, use_errno=True))
print(open("/proc/self/status").read())
"""


def test_a_traced_command_has_no_capability() -> None:
    said = subprocess.run([sys.executable, "-c", SHOW], check=True, capture_output=True, text=True).stdout
    sets = dict(re.findall(r"^(Cap\w+):\t(\w+)$", said, re.MULTILINE))
    assert {name: int(sets[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {
        "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "found"),
    [
        ("prlimit64", (0,), True),
        ("prlimit64", (41,), True),
        ("prlimit64", (42,), False),
        ("sched_setaffinity", (42,), False),
        ("setpriority", (0, 41), True),
        ("setpriority", (0, 42), False),
        ("setpriority", (2, 0), False),
        ("ioprio_set", (1, 0), True),
        ("ioprio_set", (3, 0), False),
    ],
)
def test_a_command_changes_its_own_processes_only(name: str, arguments: tuple[int, ...], found: bool) -> None:
    context: Any = SimpleNamespace(tracees={41: None})
    call: Any = SimpleNamespace(integer=lambda index: arguments[index])
    if found:
        assert ACCOUNT_CALLS[name](context, call) is None
        return
    with pytest.raises(OSError) as error:
        ACCOUNT_CALLS[name](context, call)
    assert error.value.errno == errno.ESRCH
