"""When this process began: no file that changed later is one that it was loaded from for certain."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.snapshots import process_started, program_files

_TELL = """
import os, sys, time
time.sleep(0.3)
began = time.time()
from pipeline.snapshots import process_started
print(began - process_started(time.time()))
if os.fork() == 0:
    time.sleep(0.2)
    print(time.time() - process_started(time.time()), flush=True)
    os._exit(0)
os.wait()
"""


def test_it_is_told_from_the_start_and_not_from_the_question() -> None:
    done = subprocess.run([sys.executable, "-c", _TELL], capture_output=True, text=True, check=True)
    first, *_ = lines = [float(line) for line in done.stdout.split()]
    assert first >= 0.29, "the time before the import counts"
    assert lines[-1] >= 0.2, "a forked process was loaded when its parent was"


def test_without_a_readable_stat_it_is_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(program_files, "_IMPORTED", now - 7)
    monkeypatch.setattr(program_files.time, "clock_gettime", lambda _: now)
    for text in (None, "", "1 (a) b) S", "1 (x) S " + "y " * 30):
        monkeypatch.setattr(program_files, "_OWN_STAT", tmp_path / "stat")
        if text is not None:
            (tmp_path / "stat").write_text(text)
        assert process_started(1000.0) == pytest.approx(993, abs=1)


def test_a_name_with_parentheses_and_spaces_is_no_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = int((now - 5) * os.sysconf("SC_CLK_TCK"))
    (tmp_path / "stat").write_text(f"1 (a) 9 (b c) S {'0 ' * 18}{ticks} 7 7 7\n")
    monkeypatch.setattr(program_files, "_OWN_STAT", tmp_path / "stat")
    monkeypatch.setattr(program_files, "_IMPORTED", now)
    monkeypatch.setattr(program_files.time, "clock_gettime", lambda _: now)
    assert process_started(1000.0) == pytest.approx(995, abs=1)
