"""`relbuild run`, `smoke --keep` and `smoke --record` by the command line, on images of one program and of busybox."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.layers import pack_directory
from pipeline.model.image import ImageConfig
from pipeline.model.tree import Tree
from pipeline.oci import make_image, write_layout
from pipeline.recipes import load_recipe
from pipeline.sandbox import find_runtime, open_sandbox_registry
from pipeline.smoke import report_lines, smoke
from pipeline.store import Store
from tests.support.patience import HUNG
from tests.support.sites import relbuild_at_once
from tests.support.static_root import make_silent_root
from tests.support.tiny_root import make_root, require_root
from tests.system.conftest import ROOT

pytestmark = pytest.mark.brief

SILENT = ImageConfig(
    "amd64", 0, entrypoint=("/app", "1"), user="app", exposed_ports=("80/tcp", "53/udp"), volumes=("/data",)
)
TINY = ImageConfig(
    "amd64",
    0,
    entrypoint=("/bin/sh", "-c"),
    command=("trap 'echo got it; exit 3' INT; echo word=$WORD; cat /etc/page.conf; while :; do sleep 0.05; done",),
    user="server",
    stop_signal="SIGINT",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a store, and the layouts `silent` and `tiny`."""
    require_root()
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    store = Store.open(folder / "store")
    for name, config, root in (
        ("silent", SILENT, make_silent_root(folder / "roots" / "silent")),
        ("tiny", TINY, make_root(folder / "roots" / "tiny")),
    ):
        layer = pack_directory(
            root, name="all", lower=Tree.of({}), shift=0, build_time=0, store=store, compression=Compression.GZIP
        )
        write_layout(make_image(name, "1.0", config, [layer]), store=store, target=folder / name)
    return folder


class Started:
    """A command of relbuild that runs."""

    def __init__(self, folder: Path, *words: str, stdin: int = subprocess.DEVNULL) -> None:
        # Who starts the tests in the background has SIGINT ignored, and that would be inherited.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "pipeline", *words]
        command += ["--store", str(folder / "store"), "--progress", "plain"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.said = ""

    def until(self, pattern: str, within: float = HUNG) -> re.Match[str]:
        """Read what it says until it says that."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + within
        while not (found := re.search(pattern, self.said)):
            left = deadline - time.monotonic()
            assert left > 0, f"it never said {pattern}: {self.said}"
            if select.select([self.process.stdout], [], [], left)[0]:
                piece = os.read(self.process.stdout.fileno(), 65536)
                assert piece, f"it ended without saying {pattern}: {self.said}"
                self.said += piece.decode()
        return found

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.rest()

    def rest(self) -> int:
        self.said += self.process.communicate(timeout=HUNG)[0].decode()
        return self.process.returncode


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Started]]:
    with contextlib.ExitStack() as closing:

        def begin(*words: str, stdin: int = subprocess.DEVNULL) -> Started:
            started = Started(folder, *words, stdin=stdin)

            def kill() -> None:
                if started.process.poll() is None:
                    os.killpg(started.process.pid, signal.SIGKILL)
                    started.process.communicate()

            closing.callback(kill)
            return started

        yield begin
    assert list((folder / "store" / "sandbox" / "live").iterdir()) == []


def free_ports(count: int) -> int:
    """The first of `count` ports that nobody has, one after the other."""
    for first in range(18080, 19080, count):
        with contextlib.ExitStack() as closing:
            try:
                for port in range(first, first + count):
                    taken = closing.enter_context(socket.socket())
                    taken.bind(("127.0.0.1", port))
                return first
            except OSError:
                continue
    raise AssertionError("no free ports")


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=HUNG) as answer:
        return answer.read().decode()


def test_instances_run_on_consecutive_ports_until_ctrl_c(start: Callable[..., Started]) -> None:
    port = free_ports(2)
    run = start("run", "silent", "--instances", "2", "-p", f"{port}:80", "--cpus", "0.5", "--memory", "64MiB")
    run.until(r"silent-1 \| ready[^|]*")
    run.until(r"silent-2 \| ready")
    # An instance may say that it is ready before its port is.
    run.until(rf"127\.0\.0\.1:{port + 1} → 80")
    assert "green" in page(port) and "green" in page(port + 1)
    run.until(r"silent-2 \| request")
    assert run.end() == 0
    assert f"127.0.0.1:{port + 1} → 80" in run.said
    assert "silent-1 | bye" in run.said and "silent-2 | bye" in run.said
    assert "stopping silent-1, silent-2 with SIGTERM" in run.said
    assert run.said.count("ended with exit code 0") == 2


def test_the_images_stop_signal_and_exit_code_are_those_of_run(start: Callable[..., Started], folder: Path) -> None:
    (folder / "page.conf").write_text("colour=\x1b[31mred\n")
    run = start("run", "tiny", "--env", "WORD=hello", "--config", "page.conf:/etc/page.conf")
    run.until(r"tiny-1 \| word=hello")
    run.until(r"tiny-1 \| colour=\\x1b\[31mred")
    assert run.end(signal.SIGTERM) == 3
    assert "with SIGINT" in run.said and "tiny-1 | got it" in run.said


def test_throughput_of_its_volumes_can_be_limited(start: Callable[..., Started]) -> None:
    run = start("run", "silent", "--io-bandwidth", "8MiB/s")
    run.until("ready")
    assert run.end() == 0
    assert "not enforced" not in run.said
    run = start("run", "tiny", "--io-bandwidth", "8MiB/s")
    run.until(r"tiny-1 \| word=")
    assert run.end() == 3
    assert "limit io_bandwidth is not enforced: the instance has no volume" in run.said


def test_one_that_ends_by_itself_ends_run_with_its_exit_code(start: Callable[..., Started]) -> None:
    run = start("run", "tiny", "--json", "--memory", "1MiB")
    code = run.rest()
    value = json.loads(run.said[run.said.index("{\n") :])
    assert code != 0
    assert "error" in value or value["exit_code"] == code


def test_too_little_memory_is_one_error_without_a_line_of_the_runtime(
    start: Callable[..., Started],
) -> None:
    run = start("run", "tiny", "--memory", "1MiB")
    assert run.rest() == 6
    assert "error[not-started] the container could not be started: its memory limit (1MiB) is too small" in run.said
    assert "→ give it at least 8MiB (--memory, or 'limits.memory' in the recipe)" in run.said
    assert "tiny-1 |" not in run.said and "runc" not in run.said, run.said


def test_named_volumes_are_kept_from_run_to_run_and_each_instance_has_its_own(start: Callable[..., Started]) -> None:
    for times in (1, 2):
        run = start("run", "silent", "--instances", "2", "--volume", "words:/data")
        run.until(rf"silent-1 \| version 1, start {times}, uid 27")
        run.until(rf"silent-2 \| version 1, start {times}, uid 27")
        run.until("silent-1.*ready")
        assert run.end() == 0


def test_a_new_named_volume_begins_with_the_images_content_and_is_then_used_as_it_is(
    start: Callable[..., Started], folder: Path
) -> None:
    volumes = folder / "store" / "volumes"
    left = volumes / ".half-0123"
    left.mkdir(parents=True)
    (left / "old").write_text("of a relbuild that was killed")
    for text in ("from the image\n", "changed\n"):
        run = start("run", "tiny", "--volume", "seeds:/var/lib/server", "--volume", "fresh:/nowhere")
        run.until(r"tiny-1 \| word=")
        place = volumes / "seeds-1"
        assert (place / "seed").read_text() == text
        status = place.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (27, 28, 0o750)
        assert ((place / "seed").stat().st_uid, (place / "seed").stat().st_gid) == (27, 28)
        assert list((volumes / "fresh-1").iterdir()) == []
        assert not left.exists()
        (place / "seed").write_text("changed\n")
        assert run.end() == 3


def test_a_named_volume_where_the_image_has_a_file_is_explained(start: Callable[..., Started], folder: Path) -> None:
    run = start("run", "tiny", "--volume", "odd:/srv/page")
    assert run.rest() == 6
    assert "volume-impossible" in run.said and "/srv/page" in run.said
    assert not (folder / "store" / "volumes" / "odd-1").exists()


def test_a_folder_of_the_host_can_be_a_volume(start: Callable[..., Started], folder: Path) -> None:
    data = folder / "shared data"
    data.mkdir()
    os.chown(data, 27, 28)
    run = start("run", "silent", "--volume", f"{data}:/data")
    run.until("ready")
    assert run.end() == 0
    assert (data / "starts").read_text() == "1\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "http"], "--publish HOST:CONTAINER"),
        (["-p", "1:0"], "--publish HOST:CONTAINER"),
        (["-v", "x"], "--volume NAME:/path"),
        (["-v", "./nowhere:/data"], "the bind mount source"),
        (["-e", "=X"], "--env NAME=VALUE"),
        (["-e", "NOT_SET_HERE"], "export NOT_SET_HERE="),
        (["--config", "silent:x"], "--config FILE:/path"),
        (["--cpus", "many"], "'many' is not a cpus"),
        (["--memory", "1GB"], "powers of 1024"),
        (["--io-bandwidth", "8mbit"], "in bytes"),
    ],
)
def test_options_that_make_no_sense_are_explained(folder: Path, words: list[str], said: str) -> None:
    with contextlib.chdir(folder):
        run = relbuild_at_once(folder, "run", "silent", *words, "--store", folder / "store", "--progress", "plain")
    assert run.returncode == 2
    assert said in run.stderr and "Traceback" not in run.stderr


def test_a_port_that_is_taken_is_explained(start: Callable[..., Started]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = start("run", "silent", "-p", f"{taken.getsockname()[1]}:80")
        assert run.rest() == 8
    assert "port-unavailable" in run.said and "another program" in run.said


def test_a_shell_of_the_image(start: Callable[..., Started]) -> None:
    run = start("run", "tiny", "--shell", stdin=subprocess.PIPE)
    run.until("shell in tiny-1")
    assert run.process.stdin is not None
    run.process.stdin.write(b"id -u; echo files: /srv/*; ps | grep -c trap; exit\n")
    run.process.stdin.flush()
    assert run.rest() == 3
    assert re.search(r"^27\r?$", run.said, re.MULTILINE)
    assert "files: /srv/page" in run.said


def test_a_shell_of_the_host_where_the_image_has_none(start: Callable[..., Started]) -> None:
    run = start("run", "silent", "--shell", stdin=subprocess.PIPE)
    pid = run.until(r"files are in /proc/(\d+)/root")[1]
    assert run.process.stdin is not None
    listening = "until grep ':0050 ' /proc/net/tcp; do sleep 0.05; done"  # The image has only been started.
    run.process.stdin.write(f"ls /proc/{pid}/root; {listening}; exit\n".encode())
    run.process.stdin.flush()
    assert run.rest() == 0
    assert re.search(r"\bapp\b.*\bdata\b", run.said, re.DOTALL)
    assert "00000000:0050" in run.said


def test_a_shell_ends_with_its_input_whatever_it_has_started(start: Callable[..., Started]) -> None:
    assert start("run", "tiny", "--shell").rest() == 3, "/dev/null"
    run = start("run", "tiny", "--shell", stdin=subprocess.PIPE)
    run.said += run.process.communicate(b"sleep 1000 & echo left: $?\n", timeout=HUNG)[0].decode()
    assert run.process.returncode == 3
    assert "left: 0" in run.said


def test_a_shell_on_a_terminal_has_one_of_its_own_which_it_controls(start: Callable[..., Started]) -> None:
    person, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    run = start("run", "tiny", "--shell", stdin=terminal)
    run.until("shell in tiny-1")
    # Said by what gets the signals of the terminal: a shell that is interrupted too early starts `sleep` all the same.
    os.write(person, b"test -t 0 && sh -c 'echo be\"\"gun; sleep 1000'\n")
    run.until("begun")
    os.write(person, b"\x03")
    os.write(person, b"sleep 1000 & echo go''es on; exit\n")
    run.until("goes on")
    assert run.rest() == 3
    assert termios.tcgetattr(terminal) == before
    os.close(person)
    os.close(terminal)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_shell_and_its_instance(start: Callable[..., Started], kind: str, number: int) -> None:
    with contextlib.ExitStack() as closing:
        person, source = os.pipe()[::-1] if kind == "pipe" else pty.openpty()
        closing.callback(os.close, person)
        closing.callback(os.close, source)
        run = start("run", "tiny", "--shell", stdin=source)
        run.until("shell in tiny-1")
        os.write(person, b"echo be''gun; trap '' TERM; sleep 1000\n")
        run.until("begun")
        assert run.end(number) == 128 + number
        assert number == signal.SIGHUP or "tiny-1 ended with exit code 3" in run.said


def test_stop_ends_a_shell(start: Callable[..., Started]) -> None:
    run = start("run", "tiny", "--shell", "--name", "shown", stdin=subprocess.PIPE)
    run.until("shell in shown")
    assert start("stop", "shown").rest() == 0
    assert run.rest() == 3


def recipe(folder: Path, name: str, smoke_text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nversion: '1'\nplatform: local\nlayers: [{{name: base, packages: [bash]}}]\n"
        f"image: {{entrypoint: [/app]}}\n{smoke_text}"
    )
    return path


def test_a_failed_instance_is_kept_until_ctrl_c(start: Callable[..., Started], folder: Path) -> None:
    recipe(folder, "kept", "smoke: {checks: [{name: says never, log: never, within: 200ms}]}\n")
    run = start("smoke", "kept.yaml", "--image", "silent", "--keep", "--junit", "kept.xml")
    pid = run.until(r"nsenter --target (\d+)")[1]
    assert "says never" in run.said and "it has no shell" in run.said
    time.sleep(0.5)
    assert Path(f"/proc/{pid}/root/app").exists()
    assert run.end() == 6
    assert "✗ says never" in run.said
    assert not Path(f"/proc/{pid}/root/app").exists()
    assert "says never" in (folder / "kept.xml").read_text()


def test_an_upgrade_from_the_layout_that_the_recipe_names(start: Callable[..., Started], folder: Path) -> None:
    text = "smoke: {upgrade_from: OLD, ready: {port: 80}, checks: [{name: again, log: start}, {name: s, stop: {}}]}\n"
    recipe(folder, "upgraded", text.replace("OLD", "silent"))
    run = start("smoke", "upgraded.yaml", "--image", "silent", "--json")
    assert run.rest() == 0, run.said
    value = json.loads(run.said[run.said.index("{\n") :])
    assert [instance["name"] for instance in value["instances"]] == ["silent-1", "silent-upgrade"]
    assert "start 2" in value["instances"][1]["log"]
    recipe(folder, "lost", text.replace("OLD", "nowhere"))
    run = start("smoke", "lost.yaml", "--image", "silent")
    assert run.rest() == 2
    assert "upgrade-from-missing" in run.said and "nowhere" in run.said


def test_an_image_without_a_recipe_is_asked_about_its_ports(start: Callable[..., Started]) -> None:
    run = start("smoke", "silent")
    assert run.rest() == 6
    assert "81/tcp listens on the loopback, but is not listed" in run.said


def test_what_is_recorded_loads_again_and_holds(start: Callable[..., Started], folder: Path) -> None:
    run = start("smoke", "silent", "--record", "--settling", "1")
    assert run.rest() == 0, run.said
    drafted = run.said[run.said.index("smoke:") :]
    loaded = load_recipe(recipe(folder, "recorded", drafted))
    kinds = {str(check.kind) for check in loaded.smoke.checks}
    assert {"listening", "http", "process", "file", "log", "image", "stop"} <= kinds, drafted
    image = make_image("silent", "1.0", SILENT, ())
    sandboxes = open_sandbox_registry(folder / "sandbox", find_runtime())
    report = smoke(image, [folder / "roots" / "silent"], loaded.smoke, sandboxes=sandboxes, clock=time.time)
    assert report.passed, (drafted, report_lines(report))
