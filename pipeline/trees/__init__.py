"""File-system trees of images as data: composed from RPM headers, scanned, compared.

`compose` computes from packages' headers what rpm would install: the entries of each layer, conflicts, and the file
states for rpm's database, without a disk or root. `scan_directory` reads a directory into the same form, and
`diff_trees` compares two trees.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.trees.apply_layer import apply_layer_entries
    from pipeline.trees.canonical_path import CanonicalPaths, canonical_path, split_path
    from pipeline.trees.capabilities import (
        CAPABILITY_XATTR,
        as_revision_2,
        capability_attribute,
        capability_text,
    )
    from pipeline.trees.compose import compose
    from pipeline.trees.composition import (
        STATE_NORMAL,
        STATE_NOT_INSTALLED,
        STATE_WRONG_COLOR,
        ComposedLayer,
        ComposeOptions,
        Composition,
        Part,
        install_color,
    )
    from pipeline.trees.merged_layers import MergedLayers, resolve_symlinks
    from pipeline.trees.scan import scan_directory
    from pipeline.trees.tree_diff import TreeDifference, diff_trees

__all__ = [
    "CAPABILITY_XATTR",
    "STATE_NORMAL",
    "STATE_NOT_INSTALLED",
    "STATE_WRONG_COLOR",
    "CanonicalPaths",
    "ComposeOptions",
    "ComposedLayer",
    "Composition",
    "MergedLayers",
    "Part",
    "TreeDifference",
    "apply_layer_entries",
    "as_revision_2",
    "canonical_path",
    "capability_attribute",
    "capability_text",
    "compose",
    "diff_trees",
    "install_color",
    "resolve_symlinks",
    "scan_directory",
    "split_path",
]
