"""The `serve` command: serve a mirror's folder read-only over HTTP on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import CommandContext, command
from pipeline.cli.environment_options import malformed_option
from pipeline.cli.messages import print_lines
from pipeline.mirror.pull_server import WARNING, serve_mirror
from pipeline.model.published_port import PORT_MOST
from pipeline.release import refuse_untested


@command(rank=180, store=False, json=False, progress=None)
def serve_command(
    context: CommandContext,
    *,
    path: Annotated[Path, typer.Argument(help="A directory mirror, or an OCI layout.", show_default=False)],
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port to listen on; 0 for any free one.")] = 8080,
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="Allow listening on addresses other than loopback.")
    ] = False,
    untested: Annotated[
        bool, typer.Option("--untested", help="Also serve an image that did not pass its tests.")
    ] = False,
) -> int:
    """Serve a mirror for pulling, on this machine.

    For developers and tests, not for the internet.
    """
    if not 0 <= port <= PORT_MOST:
        raise malformed_option("--port", str(port), f"NUMBER, from 1 to {PORT_MOST}, or 0 for any free port")
    if not untested:
        refuse_untested(path)

    def ready(url: str) -> None:
        notes = ("the served image may have failed its tests (--untested)",) if untested else ()
        print_lines(f"serving {path} at {url} (Ctrl-C stops it)", WARNING, *notes)

    serve_mirror(path, host, port, clock=context.clock, ready=ready, anywhere=anywhere)
    return 0
