"""The `doctor` command: check that this machine has what relbuild needs."""

from __future__ import annotations

from pipeline.cli.app import CommandContext, command
from pipeline.errors import EnvironmentLacking
from pipeline.sandbox import HostFinding, check_host


@command(rank=240, in_user_namespace=True, store=False, progress=None)
def doctor_command(context: CommandContext) -> int:
    """Say what this machine has of what relbuild needs."""
    findings = (*check_host(), _rpm_library())
    width = max(len(finding.name) for finding in findings)
    context.show(
        (
            f"{'✓' if finding.ok else '✗'} {finding.name:<{width}}  {finding.detail}"
            + ("" if finding.ok else f"  (needed for {finding.needed_for})")
            for finding in findings
        ),
        [{"name": f.name, "ok": f.ok, "detail": f.detail, "needed_for": f.needed_for} for f in findings],
    )
    return 0 if all(finding.ok for finding in findings) else EnvironmentLacking.exit_code


def _rpm_library() -> HostFinding:
    """Find how rpm's library is reached from this interpreter."""
    name, purpose = "rpm's library", "reading packages and checking their signatures"
    try:
        # Here and not above: it may be what is missing.
        from pipeline.packages import library_origin, library_version

        return HostFinding(name, True, f"rpm {library_version()}: {library_origin()}", purpose)
    except EnvironmentLacking as error:
        problem = error.problems[0]
        return HostFinding(name, False, f"{problem.message} → {problem.hint}", purpose)
