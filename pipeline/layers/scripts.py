"""Run one script of a transaction in a build session: environment, input, deadline, errors."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pipeline.errors import BuildError, EnvironmentLacking, SmokeError
from pipeline.layers.transaction import ScriptStep
from pipeline.model.scriptlets import ScriptletFailure, ScriptletName
from pipeline.packages import lua_command
from pipeline.sandbox import CommandSession, emulation_slowdown

SCRIPT_SECONDS = 300.0
"""Seconds that one script may run: the slowest real ones (font and certificate caches) take a few."""

SCRIPT_MOUNT = "/run/relbuild"
"""Mount point of the folder with the running script, and rpm's Lua."""

_PROGRAM_LIMIT = 1 << 20
"""Bytes of an interpreter that is itself a script, as far as its first line is read: larger ones are programs."""

_PATH = "/sbin:/bin:/usr/sbin:/usr/bin"


def run_script(step: ScriptStep, session: CommandSession, bound: Path, build_time: int) -> ScriptletFailure | None:
    """Run `step` in a build session, and return how it failed, if it did.

    `bound` is the folder that the session shows at BOUND. A failure's code is `scriptlet-failed`,
    `scriptlet-timed-out`, `command-not-started` if the image has no interpreter of that name, or `program-foreign` if
    it is for another architecture than the image. An emulated script may take longer. Raises BuildError
    `scriptlet-macros`, `command-not-started` if the machine cannot start it, and `scriptlet-failed` when the session's
    disk is full, after which nothing could go on.
    """
    if step.expand and "%" in step.body:
        raise BuildError(
            "scriptlet-macros",
            f"{step.label} requires macro expansion at installation (-e), which depends on the build machine",
            place=step.package,
            hint="leave the package out with 'exclude', or ask its maintainer to drop -e from the scriptlet",
        )
    environment = {
        "PATH": _PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(build_time),
    }
    script = bound / "script"
    argv: tuple[str, ...]
    if step.interpreter[0] == "<lua>":
        _write(script, step.body)
        argv, extra = lua_command(f"{SCRIPT_MOUNT}-lua", f"{SCRIPT_MOUNT}/script", step.arguments)
        environment |= extra
    elif step.body:
        _write(script, step.body)
        argv = (*step.interpreter, f"{SCRIPT_MOUNT}/script", *step.arguments)
    else:
        argv = step.interpreter
    seconds = SCRIPT_SECONDS * (emulation_slowdown(session.architecture) if session.architecture else 1)
    try:
        ended = session.run(argv, stdin=step.input, environment=environment, timeout=seconds)
    except SmokeError as error:
        return _ended_badly(error.code, f"{step.label}: {error.problems[0].message}", step)
    except BuildError as error:
        if error.code != "command-not-started" or not _lacks_program(session, step.interpreter[0]):
            raise
        return _ended_badly("command-not-started", f"{step.label}: {error.problems[0].message}", step)
    if ended.unsupported:
        raise EnvironmentLacking(
            "scriptlet-needs-container",
            f"{step.label} needs what only a container can do: {ended.unsupported}",
            place=step.package,
            hint="build this image as root, or as a user with subordinate IDs",
        )
    if ended.ok:
        return None
    said = (ended.stdout + ended.stderr).decode(errors="replace").strip()[-2000:]
    what = f"ended with status {ended.status}"
    if ended.timed_out:
        what = f"ran longer than {seconds:.0f} s"
    elif ended.out_of_memory:
        what = "exceeded the sandbox's memory limit for scripts"
    elif ended.out_of_disk:
        what = "exceeded the sandbox's disk limit for scripts"
    elif ended.too_large:
        what = "exceeded the sandbox's limit on the size of a file"
    elif ended.pids_refused:
        what += ", and exceeded the sandbox's limit on processes"
    what += f": {said}" if said else " without output"
    if ended.out_of_disk:
        hint = "exclude the package with 'exclude', or pin another version with 'pins'"
        raise BuildError("scriptlet-failed", f"{step.label} {what}", place=step.package, hint=hint)
    if ended.timed_out:
        # Its status is that of the kill, or of a script that ended meanwhile.
        return _ended_badly("scriptlet-timed-out", f"{step.label} {what}", step, bound=True)
    limited = ended.out_of_memory or ended.too_large or ended.pids_refused
    return _ended_badly("scriptlet-failed", f"{step.label} {what}", step, bound=limited, status=ended.status)


def _lacks_program(session: CommandSession, program: str) -> bool:
    """Return whether the image lacks a program, or the interpreter that its first line names.

    Anything else that keeps a script from being started is the machine's: no failure of the package's.
    """
    if not program.startswith("/"):  # relbuild's own Lua, or a name that only the runtime resolves
        return False
    if session.files.stat(program) is None:
        return True
    with contextlib.suppress(BuildError):  # too large for a script
        first = (session.files.read(program, limit=_PROGRAM_LIMIT) or b"").partition(b"\n")[0]
        words = first[2:].split() if first.startswith(b"#!") else []
        return bool(words) and session.files.stat(os.fsdecode(words[0])) is None
    return False


def _ended_badly(
    code: str, message: str, step: ScriptStep, *, bound: bool = False, status: int | None = None
) -> ScriptletFailure:
    script = ScriptletName(step.kind.value)
    # A label with bytes of a header that are no UTF-8 would fit into no document.
    shown = message.encode(errors="backslashreplace").decode()
    return ScriptletFailure(step.package, step.name, script, code, shown, bound, status)


def _write(script: Path, body: str) -> None:
    script.write_text(body, errors="surrogateescape")
    # It is nobody's that the container knows, and relbuild's umask may be any.
    script.chmod(0o644)
