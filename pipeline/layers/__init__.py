"""Layers: from composed packages to blobs, and from blobs to trees on disk.

The one idea: a layer is put together from segments, one per package, that are compressed once, ever. No file
system is needed to make one; `unpack` makes the tree, from the very bytes that are shipped, when something has
to run.
"""

from pipeline.layers.image_contents import read_contents
from pipeline.layers.layer import BuiltLayer, build_layer
from pipeline.layers.pack_layer import (
    layer_from_json,
    layer_to_json,
    pack_directory,
    pack_entries,
)
from pipeline.layers.parent_tree import parent_tree_and_accounts
from pipeline.layers.unpack_layer import layer_entries, unpack_to_store

__all__ = [
    "BuiltLayer",
    "build_layer",
    "layer_entries",
    "layer_from_json",
    "layer_to_json",
    "pack_directory",
    "pack_entries",
    "parent_tree_and_accounts",
    "read_contents",
    "unpack_to_store",
]
