"""relbuild: container images from RPM recipes. The module of an installed relbuild; its code is in `pipeline`."""

from pipeline import __version__

__all__ = ["__version__"]
