"""The `store fsck` command: verify all content of the store, and quarantine damage."""

from __future__ import annotations

from dataclasses import replace

from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_error, print_lines
from pipeline.errors import Problem, VerificationError
from pipeline.store import check_store


@command(rank=30, in_user_namespace=True)
def store_fsck_command(context: CommandContext) -> int:
    """Read everything in the store.

    What is damaged is put into quarantine, so that the next build makes it anew.
    """
    found = check_store(context.open_store(), context.progress)
    damaged = [{"kind": one.kind, "path": str(one.path), "why": one.why} for one in found.damaged]
    context.answer({"damaged": damaged, "read": found.read, "foreign": found.foreign})
    if found.foreign:
        print_lines(f"{found.foreign} results and trees are not sealed with this store's key and are ignored")
    if found.damaged:
        hint = "build again; missing content is rebuilt or fetched"
        problems = [Problem("store-damaged", f"{one.kind}: {one.why}", str(one.path)) for one in found.damaged]
        problems[-1] = replace(problems[-1], hint=hint)
        return print_error(VerificationError.of(problems))
    print_lines("no damage found: " + ", ".join(f"{count} {kind}" for kind, count in found.read.items()))
    return 0
