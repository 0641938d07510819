"""The program that becomes a traced command: what it gives up before."""

from __future__ import annotations

import re
import subprocess
import sys

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
