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
    Station,
    build_session,
    check_environment,
    find_runtime,
    launch,
    open_station,
)
from tests.system.leftovers import kill_with_reaper
from tests.system.sandboxed import config, content_of, left_behind
from tests.system.tiny import (
    make_root,
    processes_of,
    require_root,
)


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_root(closed / "root")


class TestNothingIsLeft:
    def test_after_sessions_and_instances_have_ended(self, root: Path, closed: Path) -> None:
        station = open_station(closed / "ends", find_runtime())
        with build_session([root], station=station) as session:
            session.run(["true"])
            assert left_behind(station), "the test would not see anything"
        with launch(config("sleep 1000"), [root], Limits(), station=station, name="x") as instance:
            instance.execute(["true"])
        with (
            pytest.raises(RelbuildError),
            launch(config(entrypoint=("/no",)), [root], Limits(), station=station, name="x"),
        ):
            pytest.fail("it was launched")
        assert left_behind(station) == []

    @pytest.mark.parametrize("what", ["instance", "session"])
    def test_after_a_killed_relbuild_at_the_next_start(self, root: Path, closed: Path, what: str) -> None:
        state = closed / f"killed-{what}"
        program = f"""
import sys
from pathlib import Path
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import build_session, find_runtime, launch, open_station
station = open_station(Path({str(state)!r}), find_runtime())
root = Path({str(root)!r})
if {what!r} == "instance":
    image = ImageConfig("amd64", 0, entrypoint=("/bin/sleep", "1000"))
    with launch(image, [root], Limits(), station=station, name="x") as instance:
        print("up", instance.berth.base, flush=True)
        sys.stdin.read()
else:
    with build_session([root], station=station) as session:
        print("up", session.shift, flush=True)
        session.run(["/bin/sleep", "1000"])
"""
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdin is not None
        base = int(child.stdout.readline().split()[1])
        deadline = time.monotonic() + 20
        while not any(b"sleep" in content_of(Path(f"/proc/{pid}/cmdline")) for pid in processes_of(base)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kill_with_reaper(child.pid, state)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        assert processes_of(base), "nothing was left, so nothing is tested"
        station = open_station(state, find_runtime())
        deadline = time.monotonic() + 10
        while left_behind(station) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left_behind(station) == []
        assert processes_of(base) == []

    def test_the_sandboxes_of_a_living_relbuild_are_left_alone(self, root: Path, station: Station) -> None:
        with launch(config("sleep 1000"), [root], Limits(), station=station, name="live") as instance:
            assert open_station(station.state, station.runtime).sweep() == ()
            assert instance.alive
            assert instance.execute(["true"]).ok

    def test_after_many_at_once(self, root: Path, closed: Path) -> None:
        station = open_station(closed / "many", find_runtime())
        outcomes: list[bytes] = []

        def work(number: int) -> None:
            with build_session([root], station=station) as session:
                outcomes.extend(session.run(["/bin/echo", str(number)]).stdout for _ in range(3))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == sorted([b"%d\n" % number for number in range(6)] * 3)
        assert left_behind(station) == []


def test_the_doctor_finds_this_machine_able() -> None:
    require_root()
    findings = {finding.name: finding for finding in check_environment()}
    assert findings["overlay"].ok, findings
    assert findings["OCI runtime"].detail == f"{find_runtime()}: {find_runtime().wall}"
    assert all(finding.needed_for for finding in findings.values())
