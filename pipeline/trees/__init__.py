"""Trees: what stands where in an image, worked out from headers before a payload is opened.

The one idea: file metadata is data. `compose` lays packages over one another as rpm would on a disk and says
what each layer holds, which conflicts there are and what rpm's database must record, and needs neither a disk
nor root. `scan` reads a real directory into the same form, so that the two can be compared, with `diff`.
"""

from pipeline.trees.capabilities import ATTRIBUTE, as_revision_2, capability_attribute, capability_text
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
from pipeline.trees.diff import Change, diff
from pipeline.trees.paths import Canonical, canonical_path, split_path
from pipeline.trees.scan import scan
from pipeline.trees.stacking import stacked

__all__ = [
    "ATTRIBUTE",
    "STATE_NORMAL",
    "STATE_NOT_INSTALLED",
    "STATE_WRONG_COLOR",
    "Canonical",
    "Change",
    "ComposeOptions",
    "ComposedLayer",
    "Composition",
    "Part",
    "as_revision_2",
    "canonical_path",
    "capability_attribute",
    "capability_text",
    "compose",
    "diff",
    "install_color",
    "scan",
    "split_path",
    "stacked",
]
