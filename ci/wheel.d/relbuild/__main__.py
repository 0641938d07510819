"""Entry point of `python -m relbuild`: the `relbuild` command."""

from pipeline.cli import main

main()
