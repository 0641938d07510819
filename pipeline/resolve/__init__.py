"""Choosing packages, and remembering the choice. The only door to libsolv.

All requests of a recipe are solved at once, as `dnf install --best` would into an empty root; each package
then belongs to the lowest layer whose requests reach it and carries the reasons for which it is there. The
result is a section of a lock, which stands beside the recipe and is used for as long as nothing that it
depends on has changed: given a fresh lock, no repository is opened.
"""

from pipeline.model.lock import Mode
from pipeline.resolve.blocks import Former, Resident, block_layers, former_block, image_layers, layer_block, resident
from pipeline.resolve.explain import explain
from pipeline.resolve.fixes import (
    Bulletin,
    fixes_taken,
    full_nevra,
    missing_fixes,
    read_bulletin,
    streams_in_use,
)
from pipeline.resolve.lockfile import format_lock, is_lock, lock_path, parse_lock, read_lock, write_lock
from pipeline.resolve.solving import open_universe, solve
from pipeline.resolve.staleness import Action, State, compare, decide, inputs, other_versions, stale
from pipeline.resolve.universe import Universe
from pipeline.resolve.versions import versions

__all__ = [
    "Action",
    "Bulletin",
    "Former",
    "Mode",
    "Resident",
    "State",
    "Universe",
    "block_layers",
    "compare",
    "decide",
    "explain",
    "fixes_taken",
    "format_lock",
    "former_block",
    "full_nevra",
    "image_layers",
    "inputs",
    "is_lock",
    "layer_block",
    "lock_path",
    "missing_fixes",
    "open_universe",
    "other_versions",
    "parse_lock",
    "read_bulletin",
    "read_lock",
    "resident",
    "solve",
    "stale",
    "streams_in_use",
    "versions",
    "write_lock",
]
