"""Layers: packed from composed packages into blobs, and unpacked from blobs to folders.

A layer is concatenated from segments, one per package, which are compressed once and kept. `building_layers` makes the
layers' trees, and their blobs beside its block; `unpack_to_store` unpacks a layer from its published blob.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.layers.built_layer import BuiltLayer
    from pipeline.layers.damaged_lowers import damages_identity, lower_damages, require_undamaged, unpack_undamaged
    from pipeline.layers.image_contents import read_contents
    from pipeline.layers.image_files import ImageFiles
    from pipeline.layers.layer import build_layer, build_layers, building_layers
    from pipeline.layers.pack_layer import (
        layer_from_json,
        layer_to_json,
        pack_directory,
        pack_entries,
    )
    from pipeline.layers.parent_tree import parent_tree_and_accounts
    from pipeline.layers.unpack_layer import layer_entries, lower_folders, unpack_to_store

__all__ = [
    "BuiltLayer",
    "ImageFiles",
    "build_layer",
    "build_layers",
    "building_layers",
    "damages_identity",
    "layer_entries",
    "layer_from_json",
    "layer_to_json",
    "lower_damages",
    "lower_folders",
    "pack_directory",
    "pack_entries",
    "parent_tree_and_accounts",
    "read_contents",
    "require_undamaged",
    "unpack_to_store",
    "unpack_undamaged",
]
