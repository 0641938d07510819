"""Smoke tests of tiny images on the real runtime: what passes, what does not, and how it is said."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.model.checks import CheckKind
from pipeline.model.checks.account_check import AccountFacts
from pipeline.model.checks.file_check import FileFacts
from pipeline.model.checks.listening_check import ListeningFacts
from pipeline.model.checks.process_check import ProcessFacts
from pipeline.model.checks.restart_check import Restart
from pipeline.model.image import Image, ImageConfig
from pipeline.model.limit import LimitReading
from pipeline.model.limits import Limits
from pipeline.model.report import LoopbackPort, SmokeReport
from pipeline.model.smoke import Check, Expectation, SmokePlan
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image
from pipeline.sandbox import Instance, SandboxRegistry, find_runtime
from pipeline.sandbox.cgroups import list_cgroups
from pipeline.smoke import junit_report, lifecycle, loopback_warnings, report_lines, smoke
from tests.support.tiny_root import make_root

pytestmark = pytest.mark.brief

SERVER = "sleep 0.2; httpd -p 80 -h /srv; trap 'echo bye; exit 0' TERM; echo serving; while :; do sleep 0.05; done"


WAIT = "while :; do sleep 0.05; done"
"""Goes on until it is killed or a trap ends it."""

Examine = Callable[..., SmokeReport]


class Silent:
    """Progress that says nothing; tests put something in place of `advance`."""

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Silent:
        return self

    def finish(self, task: object, *, failed: bool = False) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def advance(self, amount: int) -> None:
        pass


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_root(closed / "root")


def image(command: str = SERVER, **changes: object) -> Image:
    config = ImageConfig("amd64", 0, entrypoint=("/bin/sh", "-c"), command=(command,), user="server")
    return make_image("tiny", "1.0", replace(config, **changes), ())  # type: ignore[arg-type]


def port(name: str = "ready", within: int = 10_000, **more: object) -> Check:
    return Check(name, CheckKind.PORT, within, port=80, **more)  # type: ignore[arg-type]


def command(*argv: str, within: int = 5_000, name: str = "command", **expect: object) -> Check:
    exactly = expect.pop("stdout_is", None)
    for key in ("stdout", "stderr"):
        if key in expect:
            expect[key] = (Rule(matches=expect[key]),)  # type: ignore[arg-type]
    if exactly is not None:
        expect["stdout"] = (Rule(equals=exactly),)  # type: ignore[arg-type]
    wanted = Expectation(**expect)  # type: ignore[arg-type]
    return Check(name, CheckKind.COMMAND, within, command=argv, expect=wanted)


def answering(pattern: str) -> Expectation:
    return Expectation(stdout=(Rule(matches=pattern),))


def log(pattern: str, within: int = 5_000) -> Check:
    return Check("log", CheckKind.LOG, within, log=(Rule(matches=pattern),))


def stop(within: int = 10_000, exit_code: int | None = 0) -> Check:
    return Check("stops", CheckKind.STOP, within, expect=Expectation(exit_code=exit_code))


@pytest.fixture
def examine(root: Path, sandboxes: SandboxRegistry) -> Examine:
    def run(subject: Image, *checks: Check, ready: Check | None = None, **plan: object) -> SmokeReport:
        wanted = SmokePlan(ready, checks, **plan)  # type: ignore[arg-type]
        return smoke(subject, [root], wanted, sandboxes=sandboxes, clock=lambda: 1_700_000_000.5)

    return run


def details(report: SmokeReport) -> dict[str, str]:
    return {check.name: check.detail for check in report.instances[0].checks}


def test_an_image_that_does_all_that_is_asked_passes(examine: Examine) -> None:
    subject = image()
    page = port("page", send="GET /page HTTP/1.0\r\n\r\n", expect=answering("^a page$"))
    report = examine(
        subject,
        page,
        command("id", "-un", stdout_is="server"),
        command("sh", "-c", "echo odd >&2; exit 3", exit_code=3, stderr="^odd$", name="odd"),
        log("^serving$"),
        stop(),
        ready=port(),
        limits=Limits(milli_cpus=1000, memory=64 << 20, pids=50),
    )
    assert report.passed, report_lines(report)
    (instance,) = report.instances
    assert [check.name for check in instance.checks] == ["ready", "page", "command", "odd", "log", "stops"]
    assert all(check.passed for check in instance.checks)
    assert (report.image, report.started, report.runtime) == (
        subject.digest,
        1_700_000_000,
        str(find_runtime()),
    )
    assert instance.exit_code == 0
    assert instance.ready_after is not None
    assert instance.ready_after >= 200
    assert instance.log == "serving\nbye\n"
    assert all(reading.enforced for reading in instance.limits)
    assert instance.peak_memory
    assert instance.cpu_time


def test_instances_run_side_by_side(root: Path, sandboxes: SandboxRegistry) -> None:
    # Each goes on only when all three are ready: one after the other would never come to an end.
    everyone = threading.Barrier(3)

    class Together(Silent):
        def advance(self, amount: int) -> None:
            everyone.wait(timeout=30)

    plan = SmokePlan(ready=log("^up$"), instances=3)
    subject = image(f"trap 'exit 0' TERM; echo up; {WAIT}")
    report = smoke(subject, [root], plan, sandboxes=sandboxes, progress=Together(), clock=time.time)
    assert report.passed, report_lines(report)
    assert [instance.name for instance in report.instances] == ["tiny-1", "tiny-2", "tiny-3"]


def test_an_instance_that_dies_is_noticed_at_once_with_its_last_words(examine: Examine) -> None:
    begun = time.monotonic()
    report = examine(image("echo cannot open database; exit 7"), log("x"), ready=port(within=60_000))
    assert not report.passed
    assert time.monotonic() - begun < 20
    said = details(report)
    assert "exit code 7" in said["ready"]
    assert "cannot open database" in said["ready"]
    assert said["log"].startswith("skipped")
    assert report.instances[0].exit_code == 7


def test_one_that_dies_between_checks_fails_the_next(examine: Examine) -> None:
    report = examine(
        image("echo up; sleep 0.3; exit 9"),
        command("sleep", "600", exit_code=None, within=30_000),
        port("late"),
        ready=log("up"),
    )
    said = details(report)
    assert all("exit code 9" in said[name] for name in ("command", "late", "starts"))


@pytest.mark.parametrize("code", [3, 0])
def test_one_that_ends_at_once_fails_whatever_is_asked_of_it(examine: Examine, code: int) -> None:
    none = Check("none", CheckKind.PROCESS, 300, subject=ProcessFacts(name="evil", count=(Rule(equals="0"),)))
    report = examine(
        image(f"echo starting; exit {code}"),
        port("waits for its end", within=20_000),
        Check("lacks", CheckKind.LOG, 300, log=(Rule(lacks="FATAL"),)),
        Check("account", CheckKind.ACCOUNT, 300, subject=AccountFacts(user="server")),
        none,
        command("nowhere", within=300, name="missing", exit_code=127),
        command("true", within=300, name="any", exit_code=None),
    )
    said = details(report)
    assert not report.passed
    for name in ("starts", "none", "missing", "any"):
        assert f"with exit code {code}; last log lines: starting" in said[name], name
    assert said["starts"].startswith("the instance ended by itself")
    assert report.instances[0].exit_code == code


def test_one_that_ends_after_all_was_answered_right_fails(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked that takes longer than it lives, and without `ready` it is given time for that."""
    monkeypatch.setattr(lifecycle, "_STARTED_AFTER", 60.0)
    report = examine(image("sleep 3; exit 3"), Check("lacks", CheckKind.LOG, 20_000, log=(Rule(lacks="FATAL"),)))
    assert [(check.name, check.passed) for check in report.instances[0].checks] == [("lacks", True), ("starts", False)]
    assert report.problems == ("tiny-1: starts: the instance ended by itself with exit code 3; last log lines: none",)


def test_one_that_ends_by_itself_is_not_restarted(examine: Examine) -> None:
    again = Check("again", CheckKind.RESTART, 5_000, subject=Restart.AFTER_KILL)
    report = examine(image("exit 3"), port("waits for its end", within=20_000), again, log("up"))
    assert "had already ended with exit code 3" in details(report)["again"]
    assert "starts" not in details(report)


def test_one_that_is_never_ready_fails_at_its_deadline_with_the_reason(examine: Examine) -> None:
    report = examine(image("sleep 1000"), ready=port(within=400))
    assert not report.passed
    assert "not within 400 ms" in details(report)["ready"]
    assert "refused" in details(report)["ready"]
    assert 400 <= report.instances[0].checks[0].took < 5_000


def test_a_question_is_asked_again_until_the_answer_is_right(examine: Examine) -> None:
    subject = image(f"trap 'exit 0' TERM; sleep 0.4; echo yes > /tmp/answer; {WAIT}")
    report = examine(subject, command("cat", "/tmp/answer", stdout="yes"))
    assert report.passed, report_lines(report)


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (command("false", within=1_000), "exit code 1, not 0"),
        (command("echo", "no", within=1_000, stdout="yes"), "stdout does not match 'yes'"),
        (command("echo", "no", within=1_000, stdout_is="n"), "stdout is not 'n'"),
        (command("echo", "no", within=1_000, stderr="x"), "stderr does not match 'x'"),
        (command("nowhere", within=1_000), "nowhere"),
        (command("sleep", "1000", within=300), "the command did not end"),
        (log("never", within=100), "the log does not match 'never'; the log ends with: serving"),
        (port("p", 3_000, send="GET /page HTTP/1.0\r\n\r\n", expect=answering("other")), "a page"),
        (stop(exit_code=5), "exit code 0 after SIGTERM, not 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_answer_fails_and_is_shown(examine: Examine, check: Check, reason: str) -> None:
    # All of it has been said by then, and can be asked.
    report = examine(image(), check, ready=log("^serving$"))
    assert not report.passed
    assert reason in details(report)[check.name]


def test_what_must_not_be_said_is_not_missing_from_an_answer_that_was_cut(examine: Examine) -> None:
    """An error behind what is kept of the log, or of what a command prints."""
    flood = "head -c 9000000 /dev/zero | tr '\\0' y; echo; echo ERROR; touch /tmp/up"
    long = "head -c 2000000 /dev/zero | tr '\\0' y; echo ERROR"
    lacks = (Rule(lacks="ERROR"),)
    report = examine(
        image(f"trap 'exit 0' TERM; echo begun; {flood}; {WAIT}"),
        Check("log", CheckKind.LOG, 20_000, log=lacks),
        Check("found", CheckKind.LOG, 20_000, log=(Rule(matches="^begun$"),)),
        *(
            Check(name, CheckKind.COMMAND, 20_000, Expectation(**{name: lacks}), ("sh", "-c", f"({long}) {where}"))  # type: ignore[arg-type]
            for name, where in (("stdout", ""), ("stderr", ">&2"))
        ),
        ready=Check("ready", CheckKind.FILE, 60_000, subject=FileFacts("/tmp/up")),
    )
    said = details(report)
    assert [check.name for check in report.instances[0].checks if check.passed] == ["ready", "found"], said
    for name, kept in (("log", ""), ("stdout", 1 << 20), ("stderr", 1 << 20)):
        assert f"only the first {kept}" in said[name] and "were read, and the rest may be wrong" in said[name]
    assert not report.instances[0].happened.startswith("killed")


def test_one_that_does_not_stop_fails_and_is_killed(examine: Examine) -> None:
    report = examine(image("trap '' TERM; echo up; while :; do sleep 0.05; done"), stop(300), ready=log("up"))
    assert "still runs 300 ms after SIGTERM" in details(report)["stops"]
    assert not report.passed


def test_the_images_stop_signal_is_sent(examine: Examine) -> None:
    subject = image("trap 'exit 0' QUIT; echo up; while :; do sleep 0.05; done", stop_signal="SIGQUIT")
    assert examine(subject, stop(), ready=log("up")).passed


def test_an_image_that_cannot_start_is_a_report_and_no_error(examine: Examine) -> None:
    report = examine(image(entrypoint=("/bin/nowhere",)), ready=port())
    assert not report.passed
    assert "/bin/nowhere" in details(report)["starts"]


@pytest.mark.parametrize(
    ("listens", "addresses"),
    [
        ("httpd -p 127.0.0.1:80", ("127.0.0.1",)),
        ("httpd -p 127.0.0.1:80; httpd -p 127.0.9.9:80", ("127.0.0.1", "127.0.9.9")),
        ("httpd -p 80", ()),
    ],
)
@pytest.mark.parametrize("last", [(), (stop(),)], ids=["", "stopped"])
def test_an_exposed_port_that_only_the_loopback_reaches_passes_with_a_warning(
    examine: Examine, listens: str, addresses: tuple[str, ...], last: tuple[Check, ...]
) -> None:
    """The check connects to the loopback, so it passes. On 81, which is exposed too, nothing listens."""
    command = f"trap 'exit 0' TERM; {listens}; echo up; {WAIT}"
    subject = image(command, exposed_ports=("80/tcp", "81/tcp", "53/udp"))
    report = examine(subject, port("connects"), *last, ready=log("^up$"))
    assert report.passed, report_lines(report)
    assert report.instances[0].loopback_ports == ((LoopbackPort(80, addresses),) if addresses else ())
    said = loopback_warnings(report, "tiny")
    assert [text.partition(" only,")[0] for text in said] == (
        [f"tiny: the exposed port 80/tcp listens on {', '.join(addresses)}"] if addresses else []
    )


def test_ports_are_looked_at_after_the_last_restart_and_by_a_check_if_there_is_one(examine: Examine) -> None:
    listens = "if [ -e /srv/again ]; then httpd -p 127.0.0.1:80; else touch /srv/again; httpd -p 80; fi"
    command = f"trap 'exit 0' TERM; {listens}; {WAIT}"
    subject = image(command, exposed_ports=("80/tcp",), volumes=("/srv",), user="0")
    restart = Check("again", CheckKind.RESTART, 10_000, subject=Restart.SAME_DATA)
    report = examine(subject, restart, stop(), ready=port())
    assert report.passed, report_lines(report)
    assert report.instances[0].loopback_ports == (LoopbackPort(80, ("127.0.0.1",)),)
    judged = Check("listens", CheckKind.LISTENING, 300, subject=ListeningFacts())
    report = examine(subject, restart, judged, ready=port())
    assert "80/tcp listens on the loopback only" in details(report)["listens"]
    assert report.instances[0].loopback_ports is None and not loopback_warnings(report, "tiny")


def test_ports_of_an_instance_that_did_not_come_back_are_not_looked_at(examine: Examine) -> None:
    listens = "if [ -e /srv/again ]; then :; else touch /srv/again; httpd -p 127.0.0.1:80; fi"
    command = f"trap 'exit 0' TERM; {listens}; {WAIT}"
    subject = image(command, exposed_ports=("80/tcp",), volumes=("/srv",), user="0")
    restart = Check("again", CheckKind.RESTART, 10_000, subject=Restart.SAME_DATA)
    report = examine(subject, restart, ready=port(within=5_000))
    assert "not ready after the restart" in details(report)["again"]
    assert report.instances[0].loopback_ports is None


def test_an_image_of_which_nothing_is_asked_does_not_pass(examine: Examine) -> None:
    report = examine(image())
    assert not report.passed
    assert "no checks" in report.failure
    assert report.instances == ()


def test_a_limit_that_must_be_enforced_and_is_not_fails_the_run(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = LimitReading("io_weight", 100, None, False, "this kernel has no weights")
    monkeypatch.setattr(Instance, "readings", lambda self: (loose,))
    assert examine(image(), ready=port()).passed
    report = examine(image(), ready=port(), limits=Limits(enforce=True))
    assert not report.passed
    assert "io_weight" in report.failure
    assert all(check.passed for check in report.instances[0].checks)


def test_one_failing_instance_fails_the_image(examine: Examine) -> None:
    subject = image(f"trap 'exit 0' TERM; [ $HOSTNAME = tiny-1 ] || exit 3; echo up; {WAIT}")
    report = examine(subject, ready=log("up"), instances=2)
    assert [instance.checks[0].passed for instance in report.instances] == [True, False]
    assert "exit code 3" in report.instances[1].checks[0].detail
    assert not report.passed


def test_an_interrupted_run_ends_its_instances_at_once(root: Path, sandboxes: SandboxRegistry) -> None:
    class Impatient(Silent):
        """Interrupts once, as a person would, when something is under way."""

        def __init__(self) -> None:
            self._times = count()

        def advance(self, amount: int) -> None:
            if next(self._times) == 0:
                raise KeyboardInterrupt

    plan = SmokePlan(log("up"), (log("never", within=60_000),), instances=2)
    begun, before = time.monotonic(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        smoke(image(f"echo up; {WAIT}"), [root], plan, sandboxes=sandboxes, progress=Impatient(), clock=time.time)
    assert time.monotonic() - begun < 20
    # At most the one that supervises this module's sandboxes has come: none that follows a log or waits.
    assert threading.active_count() <= before + 1
    assert list((sandboxes.state / "live").iterdir()) == []
    assert list_cgroups(sandboxes.hierarchies, sandboxes.mark) == ()


def test_junit_of_a_real_run_can_be_read(examine: Examine) -> None:
    report = examine(image("printf '\\033[1mbold\\001'; sleep 100"), command("false", within=200), ready=log("bold"))
    document = ElementTree.fromstring(junit_report(report, "tiny"))
    assert document.attrib["failures"] == "1"
    assert [case.attrib["name"] for case in document.iter("testcase")] == ["log", "command"]
    assert "\\x1b[1mbold\\x01" in (document.findtext("testsuite/system-out") or "")
