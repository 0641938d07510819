"""`python -m pipeline` is `relbuild`."""

from pipeline.cli import main

main()
