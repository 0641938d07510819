"""Standard streams as they come: full, without a reader, not blocking, of another encoding than UTF-8."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.patience import HUNG

ROOT = Path(__file__).parents[3]
_ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""An environment in which Python's encoding of file names and of streams is ASCII."""


def _environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT), **more}


def shell(line: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `$relbuild` is the command."""
    relbuild = f"{sys.executable} -m pipeline"
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(
        command, env=_environment(relbuild=relbuild, **more), capture_output=True, timeout=HUNG, check=False
    )


def python(program: str, *words: bytes, **more: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, env=_environment(**more), capture_output=True, timeout=HUNG, check=False)


@pytest.mark.parametrize("flush", ["sys.stdout.buffer.flush()", "sys.stdout.flush()"])
def test_bytes_that_cannot_be_written_are_as_text_that_cannot(flush: str) -> None:
    program = (
        "import os, sys\nfrom pipeline.cli.standard_streams import STDOUT, open_streams\n"
        "from pipeline.cli.messages import report_error\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nopen_streams()\n"
        f"try:\n    sys.stdout.buffer.write(b'answer')\n    {flush}\n"
        "except OSError as error:\n    sys.exit(report_error(error, as_json=False))"
    )
    done = python(program)
    assert done.stderr.startswith(b"error[stdout-unwritable]"), done.stderr
    assert done.returncode == 8 and b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", ["--help", "build --help", "version"])
def test_a_reader_that_left_ends_each_kind_of_answer_with_one_status(words: str) -> None:
    done = shell(f"$relbuild {words} | exec true")
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("target", [">/dev/full", ">&-", "| exec true"])
def test_completions_that_cannot_be_written_are_dropped_in_silence(target: str) -> None:
    done = shell(f"_RELBUILD_COMPLETE='relbuild st' $relbuild {target}")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pipe_that_does_not_block_gets_all_of_the_answer() -> None:
    """Whoever has the other end may have set O_NONBLOCK on what both share, as Node.js and ssh do."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    command = [sys.executable, "-m", "pipeline", "schema"]
    with subprocess.Popen(command, env=_environment(), stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        answer = b""
        while piece := os.read(reading, 4096):
            answer += piece
            time.sleep(0.001)  # So that the pipe is full when the next piece is written.
        assert process.stderr is not None and process.stderr.read() == b""
    os.close(reading)
    assert process.returncode == 0 and "$defs" in json.loads(answer)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_answer_that_the_encoding_of_streams_cannot_hold_is_escaped(encoding: str) -> None:
    schema = shell("$relbuild schema", PYTHONIOENCODING=encoding)
    assert schema.returncode == 0 and json.loads(schema.stdout) == json.loads(shell("$relbuild schema").stdout)
    document = shell("$relbuild help recipe", PYTHONIOENCODING=encoding)
    assert document.returncode == 0 and b"\\u2026" in document.stdout, document.stderr


def test_names_of_files_are_utf_8_in_a_locale_with_another_encoding() -> None:
    program = (
        "from pipeline.cli.utf8_mode import use_utf8\nimport os, sys\nuse_utf8()\n"
        "print(sys.getfilesystemencoding(), os.fsencode(sys.argv[1]), sys.argv[2:], os.environ.get('PYTHONUTF8'))"
    )
    done = python(program, "ő".encode(), b"a b", b"", **_ASCII)
    assert done.stdout.decode() == f"utf-8 {'ő'.encode()!r} ['a b', ''] 1\n", done.stderr
    assert python(program, b"x", PYTHONUTF8="1").stdout == b"utf-8 b'x' [] 1\n"


def test_the_command_prints_utf_8_in_a_locale_with_another_encoding() -> None:
    done = shell("$relbuild help recipe", **_ASCII)
    assert (done.returncode, done.stderr) == (0, b"") and "…".encode() in done.stdout
