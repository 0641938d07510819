"""The removal of what the keeper's rules do not keep.

On a directory it can be brought back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.mirror.address import Address
from pipeline.mirror.retention.access_log import read_pulls
from pipeline.mirror.retention.pruning import PruningResult, UndoResult
from pipeline.model.rules import MirrorRules
from pipeline.prepare import BuildEnvironment
from pipeline.progress import task
from pipeline.release.current_images import mirror_access


def prune(
    mirror: Address,
    rules: MirrorRules,
    build_env: BuildEnvironment,
    *,
    logs: Sequence[Path] = (),
    dry_run: bool = False,
    idle: bool = False,
) -> PruningResult:
    """Remove from a mirror what the rules do not keep.

    With `dry_run` only say what that would be. `logs` are access logs that tell when tags were pulled; `idle`: nobody
    publishes to the registry meanwhile, the keeper says.

    Raises UsageError `not-a-mirror`, and as `Mirror.prune` does.
    """
    now = int(build_env.clock())
    with mirror_access(build_env).mirror(mirror) as opened, task(build_env.progress, "prune", opened.url):
        pulls = read_pulls(logs, opened.namespace) if logs else None
        return opened.prune(rules, now, pulls=pulls, dry_run=dry_run, idle=idle)


def undo_pruning(mirror: Address, stamp: str, build_env: BuildEnvironment) -> UndoResult:
    """Bring back what went from a mirror with the pruning `stamp`, and with those after it.

    Raises UsageError `quarantine-unknown`, `undo-impossible`.
    """
    with mirror_access(build_env).mirror(mirror) as opened:
        return opened.restore(stamp)
