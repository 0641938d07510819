"""The `keygen` command: generate a key pair for signing, as files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import password
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import ProgressStyle
from pipeline.errors import UsageError
from pipeline.oci import generate_key
from pipeline.store import failing_at


@command(rank=140, store=False, json=False, progress=ProgressStyle.NONE)
def keygen_command(
    context: CommandContext,
    *,
    name: Annotated[str, typer.Argument(help="Writes NAME.key and NAME.pub.")] = "relbuild",
) -> int:
    """Make a key to sign with.

    NAME.key is encrypted, in cosign's form; NAME.pub is public. The password is asked for, unless
    the environment variable RELBUILD_KEY_PASSWORD has it.
    """
    if not name or name.endswith("/"):
        raise UsageError(
            "option-malformed", f"NAME '{name}' names no file", hint="give a file's name, or its path: ~/release"
        )
    private, public = Path(f"{name}.key"), Path(f"{name}.pub")
    for path in (private, public):
        if os.path.lexists(path):
            raise UsageError("key-exists", f"'{path}' already exists", hint="choose another path, or move it away")
    secret, open_half = generate_key(password(private, context.environment)())
    with contextlib.ExitStack() as made:  # Half a pair of keys is none, and would be in the way.
        for path, data, mode in ((private, secret, 0o600), (public, open_half, 0o666)):
            path.touch(mode=mode, exist_ok=False)
            made.callback(path.unlink, missing_ok=True)
            with failing_at(path):
                path.write_bytes(data)
        made.pop_all()
    print_lines(f"wrote {private} (keep it secret) and {public} (for all who verify)")
    return 0
