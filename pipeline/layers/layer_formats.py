"""Format numbers of what is remembered of layers.

A night compares them without loading what makes layers. Each module that makes something imports its own as `FORMAT`.
"""

SEGMENT_FORMAT = 1
"""To be raised when the same inputs give other bytes of a segment."""

LAYER_FORMAT = 1
"""To be raised when the same inputs give other bytes of a layer."""

STATE_LAYER_FORMAT = 1
"""To be raised when the same inputs give another state layer."""
