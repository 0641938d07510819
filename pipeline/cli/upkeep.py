"""Commands about the machine, the store and relbuild itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import pipeline
from pipeline.cli.command import (
    JsonOption,
    StoreOption,
    Surroundings,
    answer,
    app,
    perform,
    say,
    store_app,
    tell,
)
from pipeline.cli.progress import Look, size_text
from pipeline.cli.summary import environment_as_lines
from pipeline.errors import EnvironmentLacking, Problem, VerificationError
from pipeline.escaping import visible
from pipeline.gather import locked_packages
from pipeline.packages import library_version
from pipeline.recipes import json_schema
from pipeline.sandbox import check_environment
from pipeline.store import check, collect, usage


@app.command("doctor")
def doctor_command(as_json: JsonOption = False) -> None:
    """Say what this machine has of what relbuild needs."""

    def act(around: Surroundings) -> int:
        findings = check_environment()
        if around.as_json:
            answer([{"name": f.name, "ok": f.ok, "detail": f.detail, "needed_for": f.needed_for} for f in findings])
        else:
            print(visible("\n".join(environment_as_lines(findings))))
        return 0 if all(finding.ok for finding in findings) else EnvironmentLacking.exit_code

    perform(act, Look.NONE, as_json)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of recipes, for editors."""

    def act(around: Surroundings) -> int:
        answer(json_schema())
        return 0

    perform(act, Look.NONE, False)


@app.command("version")
def version_command(as_json: JsonOption = False) -> None:
    """Print relbuild's version and that of the rpm library."""

    def act(around: Surroundings) -> int:
        if around.as_json:
            answer({"relbuild": pipeline.__version__, "rpm": library_version(), "format": pipeline.FORMAT})
        else:
            print(visible(f"relbuild {pipeline.__version__} (rpm {library_version()}, format {pipeline.FORMAT})"))
        return 0

    perform(act, Look.NONE, as_json)


@store_app.command("du")
def store_du_command(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say what the store holds and how much of the disk it takes."""

    def act(around: Surroundings) -> int:
        held = usage(around.open_store(store))
        if around.as_json:
            answer(held)
        else:
            print(visible("\n".join(f"{size_text(count):>10}  {name}" for name, count in sorted(held.items()))))
        return 0

    perform(act, Look.NONE, as_json)


@store_app.command("gc")
def store_gc_command(
    older_than: Annotated[int, typer.Option("--older-than", min=0, help="Days since the last use.")] = 30,
    locks: Annotated[Path, typer.Option("--locks", help="Packages named by locks below here are kept.")] = Path(),
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what was not used for some days.

    Packages that a lock names are kept: a repository may have dropped them.
    """

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store)
        keep = locked_packages(locks)
        done = collect(workshop.store, workshop.clock() - older_than * 86400, keep)
        if around.as_json:
            answer({"freed": done.freed, "kept_packages": len(keep), "spared_since": done.spared_since})
        else:
            say(f"freed {size_text(sum(done.freed.values()))}; {len(keep)} packages are kept for locks below {locks}")
            if done.spared_since is not None:
                when = datetime.fromtimestamp(done.spared_since, UTC)
                say(f"another relbuild uses the store: what was used since {when:%Y-%m-%d %H:%M} UTC was left")
        return 0

    perform(act, Look.NONE, as_json)


@store_app.command("fsck")
def store_fsck_command(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Read everything in the store.

    What is damaged is put into quarantine, so that the next build makes it anew.
    """

    def act(around: Surroundings) -> int:
        found = check(around.open_store(store))
        if around.as_json:
            damaged = [{"kind": one.kind, "path": str(one.path), "why": one.why} for one in found.damaged]
            answer({"damaged": damaged, "read": found.read, "foreign": found.foreign})
        if found.foreign:
            say(f"{found.foreign} results are not sealed with this store's key: they do not count, and do no harm")
        if found.damaged:
            hint = "build again: what is missing is made or fetched anew"
            problems = [Problem("store-damaged", f"{one.kind}: {one.why}", str(one.path)) for one in found.damaged]
            problems[-1] = replace(problems[-1], hint=hint)
            return tell(VerificationError.of(problems))
        say("everything is whole: " + ", ".join(f"{count} {kind}" for kind, count in found.read.items()))
        return 0

    perform(act, Look.NONE, as_json)
