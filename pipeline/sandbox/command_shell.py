"""Run commands one after the other in one container, whose process is the image's own shell.

Starting a container costs a runtime 20 ms of a processor and the wait for its control group, and most scriptlets take
two. So one container is kept, and its shell starts each command as the container's first process would have been
started: same environment, limits, capabilities and descriptors. A command that leaves anything behind (a process,
memory, a file in /dev) takes the container with it, and the next one gets a new one.

The shell reads the command's token from its input and writes it with the command's status to its output. Both can be
opened by a command, through /proc; so the token is random, and a command can give a result for itself only. Before the
next one, the shell must have answered to a token of no command, and to nothing else: all lines that a command may have
written to it have been read then. Commands' output goes through named pipes in a folder that the container sees
read-only.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.usage import Usage
from pipeline.process import DEVNULL
from pipeline.sandbox.command_container import CommandContainer, CommandResult
from pipeline.sandbox.command_input import CommandInput
from pipeline.sandbox.container_leftovers import LeftState, left_state
from pipeline.sandbox.entry_program import is_startable
from pipeline.sandbox.named_output import NamedOutput
from pipeline.sandbox.runtime_bundle import DEFAULT_PATH, ProcessPlan
from pipeline.sandbox.shell_script import SHELL_SCRIPT

if TYPE_CHECKING:
    from pipeline.sandbox.build_container import BuildSession

_SHELL = "/bin/sh"
_ENV_PROGRAMS = ("/usr/bin/env", "/bin/env")
"""Starts the command with exactly its variables: shells add their own (bash: SHLVL, even with `exec`)."""

_LINE_LIMIT = 64
"""Bytes of a line of the shell: a token, a number and a word."""

_START_SECONDS = 60.0
"""Seconds that the container may take to start, on a machine that does much else. It takes 0.03."""

_ANSWER_SECONDS = 10.0
"""Seconds that the shell may take to answer between two commands, before a new container is made. It takes 0.001."""

_GATE_SECONDS = 1.0
"""Seconds that a command with input may take to come to its gate. It takes 0.002, and some shells never let it."""

_SETTLE_SECONDS = 1.0
"""Seconds for the runtime's last process to leave a new container: on a busy machine it is seen in one of hundreds."""

_OUTPUT_SECONDS = 5.0
"""Seconds to read the rest of a command's output, at most a pipe's content, once it has ended."""

_KEPT_MEMORY = 16 << 20
"""Bytes in memory file systems that are counted for the container and leave it in use: of its 2 GiB, next to nothing.
More would be missing for later commands."""

_PLAIN = re.compile(r"[\n\t -~]*")
"""Words that any shell takes as they are, between single quotes."""


@dataclass(frozen=True, slots=True)
class _Met:
    """Counts of how often a container met its limits, of all its commands."""

    oom_kills: int = 0
    pids_refused: int = 0


@dataclass(slots=True)
class _Driver:
    """A container with the shell, and this process's ends of its input and output."""

    container: CommandContainer
    input: int
    output: int
    programs: tuple[object, ...]
    met: _Met = _Met()
    state: LeftState | None = None
    used: bool = False
    awaited: bytes = b"ready"
    received: bytes = b""

    def send(self, token: str) -> bool:
        """Write a token to the shell; return whether it may read it.

        It does not if it has ended, or if a command has filled its input.
        """
        try:
            os.write(self.input, f"{token}\n".encode())
        except OSError:
            return False
        return True

    def ask(self) -> bool:
        """Have the shell answer once it has read all that was written to it until now; as `send`."""
        token = secrets.token_hex(8)
        self.awaited = token.encode()
        return self.send(token)


@dataclass(slots=True)
class _Ending:
    """The end of a wait for a line: `line` is None if none came, or more than one."""

    line: bytes | None = None
    timed_out: bool = False
    full: bool = False


@dataclass(slots=True)
class CommandShell:
    """A build session's shell. `folder` is shared with its containers at `target`."""

    session: BuildSession
    folder: Path
    target: str
    _driver: _Driver | None = None
    _unusable: bool = False
    _takes_input: bool = True

    def start(self) -> None:
        """Start the container without waiting for it.

        Nothing is done if there is one, or if the image has no shell for it.
        """
        if self._driver is not None or self._unusable:
            return
        env = self._env()
        plan = self._plan((_SHELL, "-c", SHELL_SCRIPT, "sh", self.target))
        if env is None or not is_startable(self.session.files, plan, self.session.architecture):
            self._unusable = True
            return
        (stdin, own_input), (own_output, stdout) = os.pipe(), os.pipe()
        for end in (own_input, own_output):
            os.set_blocking(end, False)
        try:
            # One more for the shell, so that commands have as many processes as in a container of their own.
            pids = self.session.limits.pids + 1
            container = self.session.start(plan, stdin=stdin, stdout=stdout, stderr=DEVNULL, pids=pids)
        except BaseException:
            os.close(own_input)
            os.close(own_output)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        self._driver = _Driver(container, own_input, own_output, self._programs(env))

    def run(self, plan: ProcessPlan, stdin: bytes, timeout: float) -> CommandResult | None:
        """Run a command as `BuildSession.run` does.

        Returns None where it needs a container of its own: nothing was started then.
        """
        env = self._env()
        if env is None or (stdin and not self._takes_input) or not self._fits(plan):
            return None
        try:
            driver = self._begin(self._programs(env), timeout)
            if driver is None:
                return None
            return self._exchange(driver, env, plan, stdin, timeout)
        except BaseException:
            self.close()
            raise

    def finish(self) -> None:
        """Let the container end by itself; `close` waits for it."""
        if self._driver is not None and self._driver.input >= 0:
            os.close(self._driver.input)
            self._driver.input = -1

    def close(self) -> None:
        """Kill the container, if there is one, and remove it."""
        self.finish()
        driver, self._driver = self._driver, None
        if driver is not None:
            os.close(driver.output)
            driver.container.end()
            driver.container.remove_files()

    # --- a container that is ready ---------------------------------------------------------------

    def _begin(self, programs: tuple[object, ...], timeout: float) -> _Driver | None:
        """Return a container that waits for a command; None if there can be none."""
        while True:
            self.start()
            driver = self._driver
            if driver is None:
                return None
            deadline = time.monotonic() + (_ANSWER_SECONDS if driver.used else min(timeout, _START_SECONDS))
            answered = self._wait(driver, deadline).line == driver.awaited
            if answered and not driver.used:
                self._let_settle(driver)
                driver.state = left_state(driver.container.pid)
            if answered and driver.programs == programs and self._is_idle(driver) and _is_silent(driver):
                return driver
            self.close()
            if not driver.used:
                self._unusable = True
                return None

    def _let_settle(self, driver: _Driver) -> None:
        """Wait until the runtime's processes have left a new container."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not self._is_idle(driver) and time.monotonic() < deadline:
            time.sleep(0.001)

    def _is_idle(self, driver: _Driver) -> bool:
        """Return whether the shell's own tasks are the only ones, and hardly any memory is kept.

        Zombies count, as they do for the kernel's limit.
        """
        group = driver.container.group
        try:
            own = len(os.listdir(f"/proc/{driver.container.pid}/task"))  # noqa: PTH208 - a fraction of the time
        except (OSError, ValueError):
            return False
        if group.number("pids", "pids.current") != own:
            return False
        kept = group.entry("memory", "memory.stat", "shmem")
        return kept is not None and kept <= _KEPT_MEMORY

    def _is_clean(self, driver: _Driver) -> bool:
        """Return whether a command has left nothing."""
        if not self._is_idle(driver):
            return False
        return driver.state is not None and left_state(driver.container.pid, driver.state) == driver.state

    def _wait(
        self, driver: _Driver, deadline: float, outputs: Sequence[NamedOutput] = (), given: CommandInput | None = None
    ) -> _Ending:
        """Wait for one line of the shell; read a command's output, and write its input, meanwhile."""
        poll, readers = select.poll(), {output.read_end: output for output in outputs}
        for end in (driver.output, *readers):
            poll.register(end, select.POLLIN)
        if given is not None:
            poll.register(given.write_end, select.POLLOUT)
        look = time.monotonic() + self.session.pause
        while True:
            now = time.monotonic()
            ready = poll.poll(max(0.0, min(look, deadline) - now) * 1000)
            for end, _ in ready:
                if given is not None and end == given.write_end:
                    if not given.write_once():
                        poll.unregister(end)
                        given.close()
                    continue
                if end in readers:
                    time.sleep(readers[end].read_once() or 0.0)
                    continue
                try:
                    data = os.read(end, _LINE_LIMIT)
                except BlockingIOError:  # A command has read it.
                    continue
                driver.received += data
                line, ended, rest = driver.received.partition(b"\n")
                if not data or rest or len(driver.received) > _LINE_LIMIT:
                    return _Ending()
                if ended:
                    driver.received = b""
                    return _Ending(line)
            if now >= deadline:
                return _Ending(timed_out=True)
            if now >= look:
                if self.session.full():
                    return _Ending(full=True)
                look = now + self.session.pause

    # --- one command -----------------------------------------------------------------------------

    def _exchange(
        self, driver: _Driver, env: str, plan: ProcessPlan, stdin: bytes, timeout: float
    ) -> CommandResult | None:
        begun = time.monotonic()
        token, owner, limit = secrets.token_hex(8), self.session.slot.base, self.session.limits.output
        file = self.folder / f"command.{token}"
        with (
            _removed(file),
            NamedOutput(self.folder / f"out.{token}", limit, owner) as out,
            NamedOutput(self.folder / f"err.{token}", limit, owner) as err,
            CommandInput(self.folder / f"gate.{token}", stdin) if stdin else contextlib.nullcontext() as given,
        ):
            file.write_text(self._command(token, env, plan, waits=given is not None), encoding="ascii")
            file.chmod(0o644)  # It is nobody's that the container knows.
            driver.used = True
            sent = driver.send(token)
            if given is not None:
                container, patience = driver.container, min(timeout, _GATE_SECONDS)
                if not (sent and given.begin(container.group, container.pid, driver.output, patience)):
                    self._takes_input = False
                    self.close()  # With what waits at its gate, if anything does.
                    return None
            ending = self._wait(driver, begun + timeout, (out, err), given) if sent else _Ending()
            told = re.fullmatch(rf"{token} (\d{{1,3}}) (same|changed)".encode(), ending.line or b"")
            full = ending.full or self.session.full()
            before, driver.met = driver.met, _limits_met(driver.container.group.usage())
            if not (told and told[2] == b"same" and self._is_clean(driver) and driver.ask()):
                self.close()
            # The shell could hold the other end, if a command changed its memory: it has the same user.
            if not (out.finish(_OUTPUT_SECONDS) and err.finish(_OUTPUT_SECONDS)):
                self.close()
                out.finish(_OUTPUT_SECONDS)
                err.finish(_OUTPUT_SECONDS)
        return CommandResult(
            plan.argv,
            _exit_status(int(told[1])) if told else driver.container.running.returncode or _KILLED,
            out.kept,
            err.kept,
            time.monotonic() - begun,
            ending.timed_out,
            driver.met.oom_kills > before.oom_kills,
            full,
            out.dropped + err.dropped,
            driver.met.pids_refused > before.pids_refused,
        )

    def _command(self, token: str, env: str, plan: ProcessPlan, *, waits: bool) -> str:
        """Return the shell's commands that become the process of `plan`.

        If it `waits` for its input, that is at its gate.
        """
        words = " ".join(shlex.quote(word) for word in (env, "-i", *plan.environment, *plan.argv))
        places = {name: shlex.quote(f"{self.target}/{name}.{token}") for name in ("out", "err", "gate")}
        before, source = (f": 3<{places['gate']}\n", "") if waits else ("", "</dev/null ")
        return f"{before}exec {words} {source}>{places['out']} 2>{places['err']}\n"

    def _fits(self, plan: ProcessPlan) -> bool:
        """Return whether a command means the same in the shell, and can be started."""
        program = plan.argv[0]
        if plan.directory != "/" or not program.startswith("/") or "=" in program:
            return False
        if not all(_PLAIN.fullmatch(word) for word in (*plan.argv, *plan.environment)):
            return False
        return any(program.startswith(f"{target}/") for target in self.session.bound) or is_startable(
            self.session.files, plan, self.session.architecture
        )

    def _plan(self, argv: tuple[str, ...]) -> ProcessPlan:
        return replace(self.session.process_plan(argv, {}), environment=(f"PATH={DEFAULT_PATH}", "LC_ALL=C"))

    def _env(self) -> str | None:
        """Return the image's env(1), if it can be started."""
        files, architecture = self.session.files, self.session.architecture
        return next((path for path in _ENV_PROGRAMS if is_startable(files, self._plan((path,)), architecture)), None)

    def _programs(self, env: str) -> tuple[object, ...]:
        """Return stamps of the shell's file and env's: after a change, the container is made anew."""
        found = [self.session.files.stat(path) for path in (_SHELL, env)]
        return tuple(status and (status.st_dev, status.st_ino, status.st_ctime_ns) for status in found)


_KILLED = 137
"""The status of a command whose shell ended without telling one: that of a kill."""


def _is_silent(driver: _Driver) -> bool:
    """Return whether the shell has written nothing before it was asked."""
    poll = select.poll()
    poll.register(driver.output, select.POLLIN)
    return not poll.poll(0)


def _exit_status(status: int) -> int:
    """Return a status as most shells have it, 128 + n after signal n.

    ksh93's is 256 + n, and yash's 384 + n.
    """
    return status if status < 256 else 128 + (status & 127)


def _limits_met(usage: Usage) -> _Met:
    return _Met(usage.oom_kills or 0, usage.pids_refused or 0)


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
