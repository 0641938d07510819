"""Run one script of a transaction in a build session: environment, input, deadline, errors."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import BuildError
from pipeline.layers.transaction import ScriptStep
from pipeline.packages import lua_command
from pipeline.sandbox import BuildSession

SCRIPT_SECONDS = 300.0
"""Seconds that one script may run: the slowest real ones (font and certificate caches) take a few."""

SCRIPT_MOUNT = "/run/relbuild"
"""Mount point of the folder with the running script, and rpm's Lua."""

_PATH = "/sbin:/bin:/usr/sbin:/usr/bin"


def run_script(step: ScriptStep, session: BuildSession, bound: Path, build_time: int) -> None:
    """Run `step` in a build session.

    `bound` is the folder that the session shows at BOUND. Raises BuildError `scriptlet-failed`, `scriptlet-timed-out`,
    `scriptlet-macros`.
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
    ended = session.run(argv, stdin=step.input, environment=environment, timeout=SCRIPT_SECONDS)
    if not ended.ok:
        said = (ended.stdout + ended.stderr).decode(errors="replace").strip()[-2000:]
        what = f"ended with status {ended.status}"
        if ended.timed_out:
            what = f"ran longer than {SCRIPT_SECONDS:.0f} s"
        elif ended.out_of_memory:
            what = "exceeded the sandbox's memory limit for scripts"
        elif ended.out_of_disk:
            what = "exceeded the sandbox's disk limit for scripts"
        raise BuildError(
            "scriptlet-timed-out" if ended.timed_out else "scriptlet-failed",
            f"{step.label} {what}" + (f": {said}" if said else " without output"),
            place=step.package,
            hint="every scriptlet must succeed; exclude the package with 'exclude', pin another version with "
            "'pins', or add the package that the scriptlet needs",
        )


def _write(script: Path, body: str) -> None:
    script.write_text(body, errors="surrogateescape")
    # It is nobody's that the container knows, and relbuild's umask may be any.
    script.chmod(0o644)
