"""Layers: from composed packages to blobs, and from blobs to trees on disk.

The one idea: a layer is put together from segments, one per package, that are compressed once, ever. No file
system is needed to make one; `unpack` makes the tree, from the very bytes that are shipped, when something has
to run.
"""

from pipeline.layers.below import stand_on
from pipeline.layers.contents import read_contents
from pipeline.layers.layer import Made, build_layer
from pipeline.layers.packing import layer_from_json, layer_to_json, pack_directory, pack_entries
from pipeline.layers.unpacking import layer_entries, unpack

__all__ = [
    "Made",
    "build_layer",
    "layer_entries",
    "layer_from_json",
    "layer_to_json",
    "pack_directory",
    "pack_entries",
    "read_contents",
    "stand_on",
    "unpack",
]
