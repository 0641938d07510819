"""Prune a registry through its API; instructions to the operator for garbage collection."""

from __future__ import annotations

from pipeline.mirror.protocol import Mirror
from pipeline.mirror.retention.access_log import Pulls
from pipeline.mirror.retention.deletion import prune_by_deletion
from pipeline.mirror.retention.pruning import PruningResult
from pipeline.model.rules import MirrorRules

INSTRUCTIONS = (
    "the registry frees space only when its own garbage collection runs, on its own machine (docker-registry 2.8):",
    "1. stop the registry, or restart it with `storage: maintenance: readonly: enabled: true`: an image that is pushed "
    "during the collection loses its blobs",
    "2. registry garbage-collect --dry-run CONFIG.yml, then without --dry-run (Debian calls it docker-registry)",
    "3. never with --delete-untagged (-m): it deletes every manifest without a tag of its own, and so the images of "
    "every index, and every signature, SBOM and provenance that is attached by digest",
    "4. start the registry again: a running one remembers blobs that the collection took away",
)
"""Steps for the operator. Tried with docker-registry 2.8.3 (tests/system/abreast/test_prune_registry.py)."""


def prune_registry(
    mirror: Mirror,
    rules: MirrorRules,
    now: int,
    *,
    pulls: Pulls | None = None,
    dry_run: bool = False,
    idle: bool = False,
) -> PruningResult:
    """Delete what the rules do not keep; the result has INSTRUCTIONS: see `prune_by_deletion`."""
    return prune_by_deletion(mirror, rules, now, pulls=pulls, dry_run=dry_run, idle=idle, instructions=INSTRUCTIONS)
