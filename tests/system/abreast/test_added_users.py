"""Ordinary users that tests add to the machine: what a killed run has left is removed by the next."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.added_user import LOCKS, PLACE, one_at_a_time
from tests.support.tiny_root import require_root

ROOT = Path(__file__).parents[3]
ADD = """
from tests.support.added_user import NAME, PLACE, added_user
with added_user():
    (PLACE / NAME / "home").mkdir(parents=True)
    print(NAME, flush=True)
    input()
"""


def test_the_user_of_a_killed_run_is_removed_by_the_next_and_that_of_another_run_is_not() -> None:
    require_root()
    command = [sys.executable, "-c", ADD]
    options = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

    def remains(name: str) -> set[str]:
        found = {str(path) for path in (LOCKS / name, PLACE / name) if path.exists()}
        files = ("/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid")
        return found | {file for file in files if re.search(f"^{name}:", Path(file).read_text(), re.MULTILINE)}

    with subprocess.Popen(command, **options) as killed, subprocess.Popen(command, **options) as running:  # type: ignore[call-overload]
        left, used = killed.stdout.readline().strip(), running.stdout.readline().strip()
        killed.kill()
        killed.wait()
        with one_at_a_time():
            assert len(remains(left)) in (0, 6), "another run may have removed it by now"
            assert len(remains(used)) == 6
        done = subprocess.run(command, input="\n", cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        assert remains(left) == remains(done.stdout.strip()) == set()
        assert len(remains(used)) == 6
        running.communicate("\n")
        assert running.returncode == 0 and remains(used) == set()
