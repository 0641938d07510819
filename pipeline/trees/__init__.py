"""Trees: what stands where in an image, worked out from headers before a payload is opened.

The one idea: file metadata is data. `compose` lays packages over one another as rpm would on a disk and says
what each layer holds, which conflicts there are and what rpm's database must record, and needs neither a disk
nor root. `scan_directory` reads a real directory into the same form, so that the two can be compared, with
`diff_trees`.
"""

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
    "scan_directory",
    "split_path",
]
