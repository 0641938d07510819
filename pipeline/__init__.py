"""relbuild: builds tested OCI images from RPM recipes. Start reading at `pipeline.build`."""

__version__ = "0.1.0"

FORMAT = 1
"""Version of a build's output format. Part of every identity: to be raised when any byte of output changes."""
