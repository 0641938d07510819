"""Cleaning up: what the keeper's rules do not keep goes, and on a directory can be brought back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.gather import Workshop
from pipeline.mirror.addresses import Address, MirrorKind
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
from pipeline.mirror.backends.directory.directory_prune import prune_directory
from pipeline.mirror.backends.directory.directory_prune import undo as bring_back
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror
from pipeline.mirror.retention.access_log import read_pulls
from pipeline.mirror.retention.deletion import prune_registry
from pipeline.mirror.retention.model import Pruned, Undone
from pipeline.model.rules import MirrorRules
from pipeline.progress import task
from pipeline.release.current import way_of


def prune(
    mirror: Address,
    rules: MirrorRules,
    workshop: Workshop,
    *,
    logs: Sequence[Path] = (),
    dry_run: bool = False,
    idle: bool = False,
) -> Pruned:
    """Remove from a mirror what the rules do not keep, or with `dry_run` say what that would be. `logs` are access
    logs that tell when tags were pulled; `idle`: nobody publishes to the registry meanwhile, the keeper says.

    Raises UsageError `not-a-mirror`; what `prune_directory` and `prune_registry` raise.
    """
    now = int(workshop.clock())
    registry = mirror.kind in (MirrorKind.REGISTRY, MirrorKind.PLAIN_REGISTRY)
    pulls = read_pulls(logs, mirror.name if registry else "") if logs else None
    with way_of(workshop).mirror(mirror) as opened, task(workshop.progress, "prune", opened.url):
        if isinstance(opened, DirectoryMirror):
            return prune_directory(opened, rules, now, pulls=pulls, dry_run=dry_run)
        if isinstance(opened, RegistryMirror):
            return prune_registry(opened, rules, now, pulls=pulls, dry_run=dry_run, idle=idle)
        raise UsageError(
            "not-a-mirror",
            f"{mirror} is a layout, which is carried and not kept",
            place=str(mirror),
            hint="make a new one with `relbuild copy`",
        )


def undo_pruning(mirror: Address, stamp: str, workshop: Workshop) -> Undone:
    """Bring back what went from a directory mirror with the pruning `stamp`, and with those after it.

    Raises UsageError `quarantine-unknown`, `undo-impossible`.
    """
    if mirror.kind is not MirrorKind.DIRECTORY:
        raise UsageError(
            "undo-impossible", "only a directory has a quarantine to bring things back from", place=str(mirror)
        )
    with way_of(workshop).mirror(mirror) as opened:
        assert isinstance(opened, DirectoryMirror)
        return bring_back(opened, stamp)
