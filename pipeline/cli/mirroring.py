"""Commands that look at mirrors, and look after them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import (
    JsonOption,
    ProgressOption,
    RulesOption,
    StoreOption,
    Surroundings,
    VerifyOption,
    answer,
    app,
    perform,
    say,
)
from pipeline.cli.identity import IdentityOption, StaleOption, identity_for
from pipeline.cli.keys import verifying_key
from pipeline.cli.progress import Look
from pipeline.cli.publishing import ReferenceArgument, rules_for
from pipeline.cli.released import (
    history_as_json,
    history_as_lines,
    pruned_as_lines,
    undone_as_lines,
    verified_as_json,
    verified_as_lines,
)
from pipeline.escaping import visible
from pipeline.mirror.addresses import parse_address
from pipeline.mirror.pull_server import WARNING, serve
from pipeline.release import history, prune, refuse_untested, undo_pruning, verify


@app.command("verify")
def verify_command(
    reference: ReferenceArgument,
    key: VerifyOption,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the layers, only ask whether they are there.")
    ] = False,
    known_as: IdentityOption = "",
    allow_stale: StaleOption = False,
    rules: RulesOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Verify what a mirror holds.

    Every byte, every signature, every attestation, and the tests' answers once more.
    """

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store)
        verifying = verifying_key(key, workshop.environment, workshop.progress)
        identity = identity_for(known_as, rules)
        found = verify(
            parse_address(reference),
            verifying,
            workshop,
            contents=not quick,
            identity=identity,
            allow_stale=allow_stale,
        )
        say(*verified_as_lines(found))
        if around.as_json:
            answer(verified_as_json(found))
        return 0

    perform(act, progress, as_json)


@app.command("prune")
def prune_command(
    mirror: Annotated[
        str, typer.Argument(help="The mirror: dir:PATH or registry://HOST/NAMESPACE.", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and the bytes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; without a terminal nothing goes without it.")] = False,
    undo: Annotated[
        str | None,
        typer.Option("--undo", help="Bring back what went with that pruning (its stamp) and with those after it."),
    ] = None,
    idle: Annotated[
        bool, typer.Option("--idle", help="Nobody publishes to the registry now: what has no known age may go.")
    ] = False,
    access_log: Annotated[
        list[Path] | None,
        typer.Option("--access-log", help="The server's log, for `pulled-within` (repeatable; .gz too)."),
    ] = None,
    rules: RulesOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Remove what the keeper's rules do not keep.

    It is shown first, and on a directory moved aside, not deleted.
    """

    def act(around: Surroundings) -> int:
        workshop, address = around.workshop(store), parse_address(mirror)
        if undo is not None:
            undone = undo_pruning(address, undo, workshop)
            say(*undone_as_lines(undone))
            if around.as_json:
                answer(undone.json())
            return 0
        wanted = rules_for(address, rules)
        logs = access_log or ()
        done = prune(address, wanted, workshop, logs=logs, dry_run=True, idle=idle)
        say(*pruned_as_lines(done))
        if not dry_run and not done.plan.empty and _agreed(yes):
            done = prune(address, wanted, workshop, logs=logs, idle=idle)
            say(*pruned_as_lines(done))
        if around.as_json:
            answer(done.json())
        return 0

    perform(act, progress, as_json)


def _agreed(yes: bool) -> bool:
    if yes:
        return True
    if sys.stdin.isatty():
        return typer.confirm("remove that?", err=True)
    say("nothing was removed: --yes does it")
    return False


@app.command("serve")
def serve_command(
    path: Annotated[Path, typer.Argument(help="A directory mirror, or an OCI layout.", show_default=False)],
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port to listen on; 0 for any free one.")] = 8080,
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="Listen on an address that is not the loopback's, all the same.")
    ] = False,
    untested: Annotated[
        bool, typer.Option("--untested", help="Serve an image of output/ that did not pass its tests, all the same.")
    ] = False,
) -> None:
    """Serve a mirror for pulling, on this machine.

    For developers and tests, not for the internet.
    """

    def act(around: Surroundings) -> int:
        if not untested:
            refuse_untested(path)

        def ready(url: str) -> None:
            notes = ("what is served may have failed its tests: --untested was given",) if untested else ()
            say(f"serving {path} at {url} (Ctrl-C ends it)", WARNING, *notes)

        serve(path, host, port, clock=time.time, ready=ready, anywhere=anywhere)
        return 0

    perform(act, Look.NONE, False)


@app.command("history")
def history_command(
    reference: ReferenceArgument,
    key: Annotated[
        Path | None, typer.Option("--key", help="Only moves that this public key signed (default: as the mirror says).")
    ] = None,
    known_as: IdentityOption = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.NONE,
) -> None:
    """Tell what a tag pointed to and when, and what changed each time."""

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store)
        verifying = verifying_key(key, workshop.environment, workshop.progress) if key is not None else None
        steps = history(parse_address(reference), workshop, verifying, identity=identity_for(known_as))
        if around.as_json:
            answer({"history": history_as_json(steps)})
        else:
            print(visible("\n".join(history_as_lines(steps)) or "no move of this tag is written down"))
        return 0

    perform(act, progress, as_json)
