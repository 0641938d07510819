"""Commands that launch images: for their tests, or for a person."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from pipeline.build import launchable, smoke_image
from pipeline.cli.command import (
    FullOption,
    JsonOption,
    ProgressOption,
    RuntimeOption,
    StoreOption,
    SubjectArgument,
    Surroundings,
    answer,
    app,
    order,
    perform,
    say,
    tell,
)
from pipeline.cli.limit_options import NOTHING_ASKED, Asked, limits_of, with_limits
from pipeline.cli.progress import Look, close
from pipeline.cli.running import (
    Follower,
    Keeping,
    attend,
    describe,
    is_layout,
    order_of,
    run_as_json,
    stopped_by_signals,
)
from pipeline.errors import SmokeError
from pipeline.escaping import visible
from pipeline.gather import Workshop
from pipeline.launch import plan_of, record, run_image, run_tests
from pipeline.model.image import Image
from pipeline.model.smoke import SmokePlan
from pipeline.oci import adopt_layout
from pipeline.smoke import junit, report_json, report_lines


@app.command("smoke")
def smoke_command(
    subject: SubjectArgument,
    image: Annotated[Path | None, typer.Option("--image", help="A layout (default: output/NAME).")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Also write the answers as JUnit.")] = None,
    full: FullOption = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave failed instances up until Ctrl-C, and say how to get in.")
    ] = False,
    record_checks: Annotated[
        bool, typer.Option("--record", help="Ask nothing; draft `smoke:` from what the image shows, on stdout.")
    ] = False,
    settling: Annotated[float, typer.Option("--settling", help="Seconds that --record looks on.")] = 1.0,
    output: Annotated[Path, typer.Option(help="Where the layout and the report are.")] = Path("output"),
    runtime: RuntimeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Launch a built image again and ask the recipe's checks.

    An image without its recipe is asked whether it listens on its exposed ports and no other, and stops.
    """

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store, runtime=runtime)
        if record_checks:
            launched, plan = _subject(subject, workshop, image, output)
            say("# a draft: keep what must hold, and say why it must")
            drafted = record(
                launched,
                plan,
                store=workshop.store,
                station=workshop.station(),
                progress=workshop.progress,
                settling=settling,
            )
            print(visible(drafted), end="")
            return 0
        keeping = Keeping(workshop.progress) if keep else None
        if is_layout(subject):
            launched, plan = _subject(subject, workshop, None, output)
            name, report = (
                launched.name,
                run_tests(
                    launched,
                    plan,
                    store=workshop.store,
                    station=workshop.station(),
                    progress=workshop.progress,
                    clock=workshop.clock,
                    again=True,
                    holding=keeping,
                ).report,
            )
        else:
            name, report = smoke_image(
                order(subject, None, None, None, output=output, full=full), workshop, image, keeping
            )
        say(*report_lines(report))
        if junit_file is not None:
            junit_file.write_bytes(junit(report, name))
        if around.as_json:
            answer(report_json(report))
        if not report.passed:
            return tell(SmokeError("smoke-failed", f"{name} did not pass", hint="see the lines above"))
        return 0

    perform(act, progress, as_json)


def _subject(text: str, workshop: Workshop, layout: Path | None, output: Path) -> tuple[Image, SmokePlan]:
    """The image that a person means, and what is asked of it."""
    if is_layout(text):
        adopted = adopt_layout(Path(text), store=workshop.store)
        return adopted, plan_of(adopted)
    image, plan = launchable(order(text, None, None, None, output=output), workshop)
    return (image if layout is None else adopt_layout(layout, store=workshop.store)), plan


@app.command("run")
@with_limits
def run_command(
    subject: SubjectArgument,
    instances: Annotated[int, typer.Option("--instances", min=1, max=100, help="How many.")] = 1,
    asked: Asked = NOTHING_ASKED,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish",
            "-p",
            help="HOST:CONTAINER: a port on this machine's loopback; the next instance has the next port.",
        ),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume",
            "-v",
            help="NAME:PATH: kept from run to run, each instance its own; or FOLDER:PATH: a folder of this machine.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, or NAME with the value it has here.")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", help="FILE:PATH: a file of this machine in place of the image's.")
    ] = None,
    shell: Annotated[bool, typer.Option("--shell", help="Open a shell in the first instance.")] = False,
    output: Annotated[Path, typer.Option(help="Where a recipe's layout is.")] = Path("output"),
    runtime: RuntimeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Launch an image or a recipe under its limits, and follow its log until Ctrl-C."""

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store, runtime=runtime)
        image, plan = _subject(subject, workshop, None, output)
        wanted = order_of(
            instances,
            limits_of(plan.limits, asked),
            publish=publish or (),
            volume=volume or (),
            env=env or (),
            config=config or (),
            surroundings=around.environment,
        )
        with (
            stopped_by_signals() as stopping,
            contextlib.closing(Follower(stopping, shown=not as_json and not shell)) as follower,
            run_image(
                image,
                wanted,
                store=workshop.store,
                station=workshop.station(),
                progress=workshop.progress,
                follow=follower,
            ) as run,
        ):
            close(workshop.progress)
            say(*describe(run))
            code = attend(run, shell=shell, stopping=stopping)
        if around.as_json:
            answer(run_as_json(run, code))
        return code

    perform(act, progress, as_json)
