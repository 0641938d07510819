"""Entry point of `python -m pipeline`: the `relbuild` command."""

from pipeline.cli import main

main()
