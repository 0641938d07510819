"""Commands of a launcher's client: their end does not depend on processes that they leave."""

from __future__ import annotations

import os
import signal

import pytest

from pipeline.sandbox.launchers import client_command
from pipeline.sandbox.launchers.client_command import run_client
from tests.support.patience import HUNG


@pytest.mark.parametrize("stream", [1, 2])
def test_a_client_has_ended_though_its_daemon_keeps_its_output(stream: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a credential plugin's daemon that has kubectl's stderr."""
    monkeypatch.setattr(client_command, "CLIENT_OUTPUT_TIMEOUT", 0.5)
    monkeypatch.setattr("os.fchown", lambda *_: None)
    other = 3 - stream
    script = f"sleep 1000 {other}>/dev/null & echo $! >&{stream}; echo other >&{other}"
    done = run_client(["sh", "-c", script], stdin=b"", timeout=HUNG)
    kept, others = (done.stdout, done.stderr) if stream == 1 else (done.stderr, done.stdout)
    os.kill(int(kept), signal.SIGKILL)  # raises if the daemon has ended
    assert (done.status, others, done.timed_out) == (0, b"other\n", False)
