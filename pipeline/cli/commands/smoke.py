"""The `smoke` command: run the recipe's checks on a built image again, or draft checks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.build import RetestedImage, smoke_architectures
from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.environment_options import malformed_option
from pipeline.cli.messages import print_error, print_lines
from pipeline.cli.path_arguments import JUNIT_MARK, names_layout, require_report_file
from pipeline.cli.recipe_argument import build_options, image_to_launch
from pipeline.cli.recipe_place import naming_files, with_check_paths
from pipeline.errors import SmokeError
from pipeline.escaping import escape_invisible
from pipeline.launch import (
    default_smoke_plan,
    draft_smoke_checks,
    enter_command,
    run_tests,
    shell_of,
)
from pipeline.model.report import CheckResult
from pipeline.oci import choose_image, image_architecture, load_layers, read_layout_images
from pipeline.prepare import BuildEnvironment
from pipeline.progress import Progress
from pipeline.sandbox import Instance, LaunchedInstance
from pipeline.smoke import failures_json, junit_reports, report_json, report_lines

_SETTLING_MOST = 3600
"""Seconds that `--record` observes an image at most."""

_POLL_INTERVAL = 0.2
"""Seconds between checks whether a kept instance still runs."""


@command(
    rank=80,
    in_user_namespace=True,
    interrupted="its instances were ended: run it again",
)
def smoke_command(
    context: CommandContext,
    *,
    subject: options.SubjectArgument,
    platform: options.PlatformOption,
    repositories: options.RepositoriesOption,
    image: Annotated[Path | None, typer.Option("--image", help="A layout (default: output/NAME).")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Also write the check results as JUnit.")] = None,
    full: options.FullOption,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep failed instances running until Ctrl-C, and show how to enter them.")
    ] = False,
    record_checks: Annotated[
        bool, typer.Option("--record", help="Run no checks; draft `smoke:` from the running image, on stdout.")
    ] = False,
    settling: Annotated[float, typer.Option("--settling", help="Seconds that --record observes the image.")] = 1.0,
    output: Annotated[
        options.OutputFolder, typer.Option(help="Folder of layouts and reports.", envvar=options.OUTPUT_VARIABLE)
    ],
    arch: options.IndexArchOption,
    runtime: options.RuntimeOption,
    launcher: options.LauncherOption,
) -> int:
    """Launch a built image again and ask the recipe's checks.

    Of a recipe or index of several architectures, each image, or the one for --arch. An image without its recipe is
    asked whether it listens on its exposed ports and no other, and stops.
    """
    if not 0 <= settling <= _SETTLING_MOST:
        raise malformed_option("--settling", f"{settling:g}", f"SECONDS, from 0 to {_SETTLING_MOST}")
    if junit_file is not None:
        require_report_file(junit_file, "--junit", JUNIT_MARK)
    build_env = context.build_env(runtime=runtime, launcher=launcher)
    if record_checks:
        launched, plan = image_to_launch(
            subject, build_env, image, output, arch, platform=platform, repositories=repositories
        )
        print_lines("# a draft: keep the checks that matter, and give them meaningful names")
        drafted = draft_smoke_checks(
            launched,
            plan,
            store=build_env.store,
            sandboxes=build_env.sandboxes(),
            progress=build_env.progress,
            settling=settling,
        )
        print(escape_invisible(drafted), end="")
        return 0
    keeping = HeldInstances(build_env.progress) if keep else None
    if names_layout(subject):
        tested = _test_layout(Path(subject), arch, build_env, keeping)
    else:
        wanted = build_options(subject, platform, [arch] if arch else None, repositories, output=output, full=full)
        with naming_files(wanted.recipe, wanted.repositories):
            tested = tuple(
                replace(one, report=with_check_paths(one.report, wanted.recipe, wanted.repositories))
                for one in smoke_architectures(wanted, build_env, image, keeping)
            )
    for one in tested:
        if one.architecture:
            print_lines(f"{one.title}:")
        print_lines(*report_lines(one.report))
    if junit_file is not None:
        junit_file.write_bytes(junit_reports([(one.title, one.report) for one in tested]))
    context.answer(_json(tested))
    failed = ", ".join(one.title for one in tested if not one.report.passed)
    if failed:
        return print_error(SmokeError("smoke-failed", f"smoke test failed: {failed}", hint="see the output above"))
    return 0


def _json(tested: Sequence[RetestedImage]) -> dict[str, object]:
    """Return the report of the only image, or those of several by architecture."""
    whole = {one.architecture: {**report_json(one.report), "failures": failures_json(one.report)} for one in tested}
    if len(tested) == 1:
        return whole[tested[0].architecture]
    return {"passed": all(one.report.passed for one in tested), "architectures": whole}


def _test_layout(
    layout: Path, arch: str, build_env: BuildEnvironment, keeping: HeldInstances | None
) -> tuple[RetestedImage, ...]:
    """Test each image of a layout without its recipe, or the one for `arch`."""
    _, images = read_layout_images(layout)
    images = (choose_image(images, arch, str(layout)),) if arch else images
    tested = []
    for image in images:
        load_layers(layout, image, store=build_env.store)
        report = run_tests(
            image,
            default_smoke_plan(image),
            store=build_env.store,
            sandboxes=build_env.launching(),
            progress=build_env.progress,
            clock=build_env.clock,
            again=True,
            holding=keeping,
        ).report
        tested.append(RetestedImage(image.name, image_architecture(image) if len(images) > 1 else "", report))
    return tuple(tested)


class HeldInstances:
    """Keeps failed instances running until Ctrl-C, and prints how to enter them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._released = threading.Event()
        self._holds = 0
        self._lock = threading.Lock()

    def hold(self, instance: LaunchedInstance, results: Sequence[CheckResult]) -> None:
        """Print what failed and how to enter the instance, and wait."""
        with self._lock:
            self._holds += 1
            for line in kept_lines(instance, results):
                self._progress.warn(line)
        while not self._released.is_set() and instance.alive:
            self._released.wait(_POLL_INTERVAL)

    def let_go(self) -> bool:
        """Make every `hold` return; return True if there was one."""
        self._released.set()
        return self._holds > 0


def kept_lines(instance: LaunchedInstance, results: Sequence[CheckResult]) -> Iterator[str]:
    """Yield lines that a person needs to look at a failed instance."""
    failed = [result.name for result in results if not result.passed]
    yield f"{instance.name} failed ({escape_invisible(', '.join(failed[:5]))}) and keeps running until Ctrl-C"
    if instance.pid < 0:
        return  # In another kernel: nothing of it is on this machine.
    which = "enter it" if shell_of(instance) else "it has no shell; a shell of this machine in its namespaces"
    yield f"  {which}: {' '.join(enter_command(instance))}"
    yield f"  its files: /proc/{instance.pid}/root"
    if not isinstance(instance, Instance):
        return
    yield f"  its processes: {instance.slot.group.path}"
    if instance.address:
        yield f"  its address: {instance.address}"
