"""relbuild: recipes in, tested container images out. Start reading at `pipeline.build`."""

__version__ = "0.1.0"

FORMAT = 1
"""Version of what a build's bytes look like. Part of every identity: raise it when any byte changes."""
