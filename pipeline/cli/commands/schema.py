"""The `schema` command."""

from __future__ import annotations

from pipeline.cli.app import Surroundings, command
from pipeline.cli.messages import answer
from pipeline.recipes import json_schema


@command(rank=250, store=False, json=False, progress=None)
def schema_command(around: Surroundings) -> int:
    """Print the JSON Schema of recipes, for editors."""
    answer(json_schema())
    return 0
