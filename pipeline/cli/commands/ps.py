"""The `ps` command: list instances with their state, ports and limits."""

from __future__ import annotations

from pipeline.cli.app import CommandContext, command
from pipeline.cli.instance_format import instance_as_json, instance_lines
from pipeline.instances import list_instances


@command(rank=91, progress=None)
def ps_command(context: CommandContext) -> int:
    """List instances: state, ports, limits.

    Also the changes to their configuration.
    """
    found = [(folder, folder.record()) for folder in list_instances(context.open_store().instances)]
    lines = instance_lines(found, context.clock()) if found else ("no instances; `relbuild run -d` starts one",)
    context.show(lines, [instance_as_json(folder, record) for folder, record in found])
    return 0
