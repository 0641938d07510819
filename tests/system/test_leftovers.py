"""Nothing of a sandbox is left, however its relbuild ended; and the doctor knows this machine."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import RelbuildError
from pipeline.model.limits import Limits
from pipeline.sandbox import (
    SandboxRegistry,
    build_session,
    check_host,
    find_runtime,
    launch,
    open_sandbox_registry,
)
from tests.support.leftover_check import kill_with_reaper
from tests.support.patience import HUNG
from tests.support.sandbox_images import config, content_of, left_behind
from tests.support.tiny_root import make_root, processes_of, require_root

pytestmark = pytest.mark.brief


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_root(closed / "root")


class TestNothingIsLeft:
    def test_after_sessions_and_instances_have_ended(self, root: Path, closed: Path) -> None:
        sandboxes = open_sandbox_registry(closed / "ends", find_runtime())
        with build_session([root], sandboxes=sandboxes) as session:
            session.run(["true"])
            assert left_behind(sandboxes), "the test would not see anything"
        with launch(config("sleep 1000"), [root], Limits(), sandboxes=sandboxes, name="x") as instance:
            instance.execute(["true"])
        with (
            pytest.raises(RelbuildError),
            launch(config(entrypoint=("/no",)), [root], Limits(), sandboxes=sandboxes, name="x"),
        ):
            pytest.fail("it was launched")
        assert left_behind(sandboxes) == []

    @pytest.mark.parametrize("what", ["instance", "session"])
    def test_after_a_killed_relbuild_at_the_next_start(self, root: Path, closed: Path, what: str) -> None:
        state = closed / f"killed-{what}"
        program = f"""
import sys
from pathlib import Path
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import build_session, find_runtime, launch, open_sandbox_registry
sandboxes = open_sandbox_registry(Path({str(state)!r}), find_runtime())
root = Path({str(root)!r})
if {what!r} == "instance":
    image = ImageConfig("amd64", 0, entrypoint=("/bin/sleep", "1000"))
    with launch(image, [root], Limits(), sandboxes=sandboxes, name="x") as instance:
        print("up", instance.slot.base, flush=True)
        sys.stdin.read()
else:
    with build_session([root], sandboxes=sandboxes) as session:
        print("up", session.shift, flush=True)
        session.run(["/bin/sleep", "1000"])
"""
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdin is not None
        base = int(child.stdout.readline().split()[1])
        deadline = time.monotonic() + HUNG
        while not any(b"sleep" in content_of(Path(f"/proc/{pid}/cmdline")) for pid in processes_of(base)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kill_with_reaper(child.pid, state)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        assert processes_of(base), "nothing was left, so nothing is tested"
        sandboxes = open_sandbox_registry(state, find_runtime())
        deadline = time.monotonic() + HUNG
        while left_behind(sandboxes) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left_behind(sandboxes) == []
        assert processes_of(base) == []

    def test_the_sandboxes_of_a_living_relbuild_are_left_alone(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(config("sleep 1000"), [root], Limits(), sandboxes=sandboxes, name="live") as instance:
            assert open_sandbox_registry(sandboxes.state, sandboxes.runtime).sweep() == ()
            assert instance.alive
            assert instance.execute(["true"]).ok

    def test_after_many_at_once(self, root: Path, closed: Path) -> None:
        sandboxes = open_sandbox_registry(closed / "many", find_runtime())
        outcomes: list[bytes] = []

        def work(number: int) -> None:
            with build_session([root], sandboxes=sandboxes) as session:
                outcomes.extend(session.run(["/bin/echo", str(number)]).stdout for _ in range(3))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == sorted([b"%d\n" % number for number in range(6)] * 3)
        assert left_behind(sandboxes) == []


def test_the_doctor_finds_this_machine_able() -> None:
    require_root()
    findings = {finding.name: finding for finding in check_host()}
    assert findings["overlay"].ok, findings
    assert findings["OCI runtime"].detail == f"{find_runtime()}: {find_runtime().isolation}"
    assert all(finding.needed_for for finding in findings.values())
