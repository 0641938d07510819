"""Start of a detached `run`: a second process of relbuild, which outlives the first one.

The first process starts the second with the same words, and waits until it says that the instance runs. The words are
passed in a file without a name, because everybody can read a command line, and a variable may be a secret. Until then
both are in the person's terminal: progress, questions and an editor are the second's, and Ctrl-C reaches it. Then it
leaves the terminal, and the first one ends. An ordinary user's first process enters no user namespace, because its PID
namespace would end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence

from pipeline import process
from pipeline.cli.signals import Terminated
from pipeline.cli.standard_streams import drop_streams

_PROGRAM = (
    "import json, sys; sys.path[:], sys.argv[1:] = json.load(open(int(sys.argv[1]))); "
    "from pipeline.cli import main; main()"
)
"""Runs a command line with this process's `sys.path`: a folder `pipeline` in the working directory is none of it."""


def start_supervisor(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start a supervisor with the words of this command line, and wait until its instance runs.

    Returns 0, or the exit status of a supervisor that ended before; it has said why.
    """
    told, tell = os.pipe()
    try:
        with open(os.memfd_create("words"), "w+") as passed:  # noqa: PTH123 - a descriptor
            json.dump([_path(), [words[0], "--supervised", str(tell), *words[1:]]], passed)
            passed.seek(0)
            # The last word is for people who read a list of processes.
            supervisor = process.start(
                [sys.executable, "-P", "-c", _PROGRAM, str(passed.fileno()), words[0]],
                stdin=0,
                stdout=1,
                stderr=2,
                environment=environment,
                pass_fds=(tell, passed.fileno()),
                new_session=False,
            )
    finally:
        os.close(tell)
    try:
        while True:
            try:
                if os.read(told, 1):
                    return 0
                status = supervisor.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                pass  # The terminal has sent it to the supervisor, too.
            except Terminated as ended:
                supervisor.send_signal(ended.number)
    finally:
        os.close(told)


def leave_terminal(tell: int) -> None:
    """Leave session, working directory and streams of the process that started this one.

    Then say so to the descriptor `tell`.
    """
    os.setsid()
    os.chdir("/")
    drop_streams()
    with contextlib.suppress(BrokenPipeError):
        os.write(tell, b"1")
    os.close(tell)


def _path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - an empty entry is the working directory
