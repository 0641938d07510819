"""Open a mirror and prune it by the operator's rules and access logs, or undo prunings."""

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

    With `dry_run`, nothing is changed. `logs`: access logs with the times of pulls; `idle`: the operator assures that
    nobody publishes to the registry meanwhile.

    Raises UsageError `not-a-mirror`, and as `Mirror.prune` does.
    """
    now = int(build_env.clock())
    with mirror_access(build_env).mirror(mirror) as opened, task(build_env.progress, "prune", opened.url):
        pulls = read_pulls(logs, opened.namespace) if logs else None
        return opened.prune(rules, now, pulls=pulls, dry_run=dry_run, idle=idle)


def undo_pruning(mirror: Address, stamp: str, build_env: BuildEnvironment) -> UndoResult:
    """Undo the pruning `stamp` of a mirror and those after it.

    Raises UsageError `quarantine-unknown`, `undo-impossible`.
    """
    with mirror_access(build_env).mirror(mirror) as opened:
        return opened.restore(stamp)
