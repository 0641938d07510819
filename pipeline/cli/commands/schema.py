"""The `schema` command: print the JSON Schema of recipes, for editors."""

from __future__ import annotations

from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_json
from pipeline.recipes import json_schema


@command(rank=250, store=False, json=False, progress=None)
def schema_command(context: CommandContext) -> int:
    """Print the JSON Schema of recipes, for editors."""
    print_json(json_schema())
    return 0
