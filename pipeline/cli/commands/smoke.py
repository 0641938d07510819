"""The `smoke` command."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.build import smoke_image
from pipeline.cli import options
from pipeline.cli.app import Surroundings, command
from pipeline.cli.file_arguments import is_layout
from pipeline.cli.messages import say, tell
from pipeline.cli.recipe_argument import image_to_launch, order
from pipeline.errors import SmokeError
from pipeline.escaping import visible
from pipeline.launch import enter_command, record, run_tests, shell_of
from pipeline.model.report import CheckResult
from pipeline.progress import Progress
from pipeline.sandbox import Instance
from pipeline.smoke import junit, report_json, report_lines

_LOOK = 0.2
"""Seconds between looks at whether a kept instance still runs."""


@command(rank=80, in_a_namespace=True)
def smoke_command(
    around: Surroundings,
    *,
    subject: options.SubjectArgument,
    image: Annotated[Path | None, typer.Option("--image", help="A layout (default: output/NAME).")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Also write the answers as JUnit.")] = None,
    full: options.FullOption,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave failed instances up until Ctrl-C, and say how to get in.")
    ] = False,
    record_checks: Annotated[
        bool, typer.Option("--record", help="Ask nothing; draft `smoke:` from what the image shows, on stdout.")
    ] = False,
    settling: Annotated[float, typer.Option("--settling", help="Seconds that --record looks on.")] = 1.0,
    output: Annotated[options.OutputFolder, typer.Option(help="Where the layout and the report are.")],
    runtime: options.RuntimeOption,
) -> int:
    """Launch a built image again and ask the recipe's checks.

    An image without its recipe is asked whether it listens on its exposed ports and no other, and stops.
    """
    workshop = around.workshop(runtime=runtime)
    if record_checks:
        launched, plan = image_to_launch(subject, workshop, image, output)
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
        launched, plan = image_to_launch(subject, workshop, None, output)
        name = launched.name
        report = run_tests(
            launched,
            plan,
            store=workshop.store,
            station=workshop.station(),
            progress=workshop.progress,
            clock=workshop.clock,
            again=True,
            holding=keeping,
        ).report
    else:
        name, report = smoke_image(order(subject, output=output, full=full), workshop, image, keeping)
    say(*report_lines(report))
    if junit_file is not None:
        junit_file.write_bytes(junit(report, name))
    around.answer(report_json(report))
    if not report.passed:
        return tell(SmokeError("smoke-failed", f"{name} did not pass", hint="see the lines above"))
    return 0


class Keeping:
    """Keeps failed instances up until Ctrl-C, and says how to get in."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._enough = threading.Event()
        self._holds = 0
        self._lock = threading.Lock()

    def hold(self, instance: Instance, results: Sequence[CheckResult]) -> None:
        """Say what failed and how to look at it, and wait."""
        with self._lock:
            self._holds += 1
            for line in kept_lines(instance, results):
                self._progress.warn(line)
        while not self._enough.is_set() and instance.alive:
            self._enough.wait(_LOOK)

    def let_go(self) -> bool:
        """Every `hold` returns. Was there one?"""
        self._enough.set()
        return self._holds > 0


def kept_lines(instance: Instance, results: Sequence[CheckResult]) -> Iterator[str]:
    """Yield lines that a person needs to look at a failed instance."""
    failed = [result.name for result in results if not result.passed]
    yield f"{instance.name} failed ({visible(', '.join(failed[:5]))}) and is kept up until Ctrl-C"
    which = "a shell in it" if shell_of(instance) else "it has no shell; one of this machine in its namespaces"
    yield f"  {which}: {' '.join(enter_command(instance))}"
    yield f"  its files: /proc/{instance.pid}/root   its processes: {instance.berth.group.path}"
    if instance.address:
        yield f"  its address: {instance.address}"
