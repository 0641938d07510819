"""Choosing packages, and remembering the choice. The only door to libsolv.

All requests of a recipe are solved at once, as `dnf install --best` would into an empty root; each package
then belongs to the lowest layer whose requests reach it and carries the reasons for which it is there. The
result is a section of a lock, which stands beside the recipe and is used for as long as nothing that it
depends on has changed: given a fresh lock, no repository is opened.
"""

from pipeline.resolve.blocks import Former, Resident, block_layers, former_block, image_layers, layer_block, resident
from pipeline.resolve.explain import explain
from pipeline.resolve.lockfile import format_lock, lock_path, parse_lock, read_lock, write_lock
from pipeline.resolve.solving import solve
from pipeline.resolve.staleness import Action, Mode, State, compare, decide, inputs, other_versions, stale
from pipeline.resolve.versions import versions

__all__ = [
    "Action",
    "Former",
    "Mode",
    "Resident",
    "State",
    "block_layers",
    "compare",
    "decide",
    "explain",
    "format_lock",
    "former_block",
    "image_layers",
    "inputs",
    "layer_block",
    "lock_path",
    "other_versions",
    "parse_lock",
    "read_lock",
    "resident",
    "solve",
    "stale",
    "versions",
    "write_lock",
]
