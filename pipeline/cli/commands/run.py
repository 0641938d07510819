"""The `run` command: launch an image or a recipe under its limits, and follow its log."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Annotated

import typer

from pipeline import process
from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.limit_options import RequestedLimits, limits_of, with_limits
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import close
from pipeline.cli.recipe_argument import image_to_launch
from pipeline.errors import UsageError
from pipeline.escaping import escape_invisible
from pipeline.launch import (
    HostMount,
    ImageRun,
    PublishedPort,
    RunOptions,
    enter_command,
    run_image,
    shell_of,
)
from pipeline.model.limits import Limits
from pipeline.sandbox import Instance

_POLL_INTERVAL = 0.2
"""Seconds between checks whether the instances still run."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PORT_MOST = 65535


@command(rank=90, in_user_namespace=True)
@with_limits
def run_command(
    context: CommandContext,
    *,
    subject: options.SubjectArgument,
    instances: Annotated[int, typer.Option("--instances", min=1, max=100, help="Number of instances.")] = 1,
    asked: RequestedLimits,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish",
            "-p",
            help="HOST:CONTAINER: a port on this machine's loopback; the next instance has the next port.",
        ),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume",
            "-v",
            help="NAME:PATH: a volume kept between runs, one per instance; or FOLDER:PATH: a folder of this machine.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, or NAME with its value in this environment.")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", help="FILE:PATH: mount a file of this machine over the image's.")
    ] = None,
    shell: Annotated[bool, typer.Option("--shell", help="Open a shell in the first instance.")] = False,
    arch: options.RunArchOption,
    output: Annotated[options.OutputFolder, typer.Option(help="Folder of layouts.", envvar=options.OUTPUT_VARIABLE)],
    runtime: options.RuntimeOption,
) -> int:
    """Launch an image or a recipe under its limits.

    Its log is followed until Ctrl-C.
    """
    build_env = context.build_env(runtime=runtime)
    image, plan = image_to_launch(subject, build_env, None, output, arch)
    wanted = run_options(
        instances,
        limits_of(plan.limits, asked),
        publish=publish or (),
        volume=volume or (),
        env=env or (),
        config=config or (),
        surroundings=context.environment,
    )
    with (
        stopped_by_signals() as stopping,
        contextlib.closing(Follower(stopping, shown=not context.as_json and not shell)) as follower,
        run_image(
            image,
            wanted,
            store=build_env.store,
            sandboxes=build_env.sandboxes(),
            progress=build_env.progress,
            follow=follower,
        ) as run,
    ):
        close(build_env.progress)
        print_lines(*run_as_lines(run))
        code = wait_for_run(run, shell=shell, stopping=stopping)
    context.answer(_json(run, code))
    return code


# --- options -----------------------------------------------------------------------------------------------


def run_options(
    instances: int,
    limits: Limits,
    *,
    publish: Sequence[str],
    volume: Sequence[str],
    env: Sequence[str],
    config: Sequence[str],
    surroundings: Mapping[str, str],
) -> RunOptions:
    """Parse the options of `run`; `surroundings` is relbuild's environment. Raises UsageError."""
    environment = dict(_variable(text, surroundings) for text in env)
    mounts = [*(_volume(text) for text in volume), *(_config(text) for text in config)]
    return RunOptions(instances, limits, tuple(map(_published, publish)), tuple(mounts), environment)


def _variable(text: str, surroundings: Mapping[str, str]) -> tuple[str, str]:
    """Parse NAME=VALUE, or NAME with relbuild's own value.

    The latter keeps secrets off the command line, which every user's `ps` shows.
    """
    name, separator, value = text.partition("=")
    if not name:
        raise _malformed("--env", text, "NAME=VALUE, or NAME for its value in this environment")
    if separator:
        return name, value
    if name not in surroundings:
        raise UsageError(
            "variable-missing",
            f"--env {name}: the environment variable is not set",
            hint=f"export {name}=… first, or write --env {name}=VALUE",
        )
    return name, surroundings[name]


def _published(text: str) -> PublishedPort:
    host, separator, container = text.rpartition(":")
    words = (host if separator else container, container)
    if not all(word.isascii() and word.isdigit() and int(word) <= _PORT_MOST for word in words) or container == "0":
        raise _malformed("--publish", text, "HOST:CONTAINER, such as 8080:80, or one port for both; 0: any free one")
    return PublishedPort(int(words[0]), int(words[1]))


def _volume(text: str) -> HostMount:
    source, _, path = text.rpartition(":")
    if not source or not path.startswith("/") or (not _NAME.fullmatch(source) and "/" not in source):
        raise _malformed("--volume", text, "NAME:/path/in/container or ./folder:/path/in/container")
    return HostMount(source, path, named="/" not in source)


def _config(text: str) -> HostMount:
    source, _, path = text.rpartition(":")
    if not source or not path.startswith("/"):
        raise _malformed("--config", text, "FILE:/path/in/container")
    return HostMount(source, path, read_only=True)


def _malformed(option: str, text: str, form: str) -> UsageError:
    return UsageError("option-malformed", f"invalid {option} '{text}'", hint=f"write {option} {form}")


# --- logs --------------------------------------------------------------------------------------------------


class Follower:
    """A writer of instances' output to stdout, line by line, each with the instance's name.

    Control characters are escaped; a line of more than `LONGEST` bytes is broken. The first output arms `stopping`.
    """

    LONGEST = 16 << 10

    def __init__(self, stopping: StopRequest, *, shown: bool) -> None:
        self._stopping = stopping
        self._shown = shown
        self._open: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, piece: bytes) -> None:
        self._stopping.armed = True
        if not self._shown:
            return
        with self._lock:
            *lines, rest = (self._open.get(name, b"") + piece).split(b"\n")
            if len(rest) > self.LONGEST:
                lines, rest = [*lines, rest], b""
            self._open[name] = rest
            self._write(name, lines)

    def close(self) -> None:
        """Write lines that were not ended."""
        with self._lock:
            for name, rest in self._open.items():
                self._write(name, [rest] if rest else [])
            self._open.clear()

    def _write(self, name: str, lines: Sequence[bytes]) -> None:
        if lines:
            texts = (escape_invisible(line.decode(errors="replace").rstrip("\r"), lines=False) for line in lines)
            label = escape_invisible(name, lines=False)
            print("\n".join(f"{label} | {text}" for text in texts), flush=True)


# --- while they run ------------------------------------------------------------------------------------------


def wait_for_run(run: ImageRun, *, shell: bool, stopping: StopRequest) -> int:
    """Wait until the instances end by themselves or the person stops them.

    Returns the exit code.
    """
    stopping.armed = True
    if shell and not stopping.asked.is_set():
        print_lines(f"shell in {run.instances[0].name}; leaving the shell stops the instance")
        open_shell(run.instances[0])
    else:
        while not stopping.asked.is_set() and not run.wait(_POLL_INTERVAL):
            pass
    return _stop(run)


def _stop(run: ImageRun) -> int:
    living = [instance.name for instance in run.instances if instance.alive]
    if living:
        print_lines(f"stopping {', '.join(living)} with {run.stop_signal or 'SIGTERM'} (press Ctrl-C again to kill)")
        try:
            run.stop()
        except KeyboardInterrupt:
            for instance in run.instances:
                instance.kill()
    for instance in run.instances:
        print_lines(f"{instance.name} ended with exit code {instance.exit_code}")
    return run.exit_code


def run_as_lines(run: ImageRun) -> Iterator[str]:
    """Yield lines about instances that have just been started: addresses, ports, limits.

    The limits are those that are not enforced.
    """
    for instance, ports in zip(run.instances, run.ports, strict=True):
        places = [f"127.0.0.1:{host} → {container}" for host, container in ports]
        address = f", address {instance.address}" if instance.address else ""
        yield f"{instance.name} runs{address}" + (f", {', '.join(places)}" if places else "")
        for reading in instance.readings():
            if not reading.enforced:
                yield f"  ! limit {reading.name} is not enforced: {reading.reason}"


class StopRequest:
    """A signal handler that stops instances cleanly.

    Once instances run that can be stopped cleanly (`armed`), the first Ctrl-C or SIGTERM sets `asked`, and the next one
    interrupts. Before that, the first one interrupts.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.armed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.armed or self.asked.is_set():
            raise KeyboardInterrupt
        self.asked.set()


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM by a `StopRequest` during the block."""
    stopping = StopRequest()
    before = [(number, signal.signal(number, stopping)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stopping
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def open_shell(instance: Instance) -> int:
    """Open a shell in the instance, and return its exit status.

    It is on a new pseudo-terminal, so that its processes cannot access the person's terminal.
    """
    if shell_of(instance) is None:
        print_lines(
            "the image has no shell; this is a shell of this machine in the instance's network and PID namespaces; "
            f"the instance's files are in /proc/{instance.pid}/root"
        )
    given = process.clean_environment({"TERM": os.environ.get("TERM", "dumb"), "HOME": "/"})
    bare = ["env", "-i", *(f"{key}={value}" for key, value in given.items())]
    return os.waitstatus_to_exitcode(pty.spawn([*bare, *enter_command(instance)]))


def _json(run: ImageRun, code: int) -> Mapping[str, object]:
    return {
        "instances": [
            {
                "name": instance.name,
                "exit_code": instance.exit_code,
                "ports": [{"host": host, "container": container} for host, container in ports],
            }
            for instance, ports in zip(run.instances, run.ports, strict=True)
        ],
        "exit_code": code,
    }
