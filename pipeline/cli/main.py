"""The commands. Each reads argv, calls one narrative, and prints its outcome."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import pipeline
from pipeline.build import Built, build, launchable, smoke_image
from pipeline.cli.outcome import report as report_error
from pipeline.cli.progress import Live, Look, open_progress, size_text
from pipeline.cli.running import (
    Follower,
    Keeping,
    attend,
    describe,
    is_layout,
    limits_of,
    order_of,
    run_as_json,
    stopped_by_signals,
)
from pipeline.cli.summary import (
    built_as_json,
    built_as_lines,
    environment_as_lines,
    image_as_json,
    image_as_lines,
    locked_as_json,
    locked_as_lines,
)
from pipeline.errors import EnvironmentLacking, SmokeError, UsageError, VerificationError
from pipeline.gather import Order, Workshop, explain_package, lock_recipe, locked_packages
from pipeline.launch import plan_of, record, run_image, run_tests
from pipeline.model.image import Compression, Image
from pipeline.model.smoke import SmokePlan
from pipeline.oci import ArchiveKind, adopt_layout, read_layout, validate, write_archive
from pipeline.packages import library_version
from pipeline.progress import Progress
from pipeline.recipes import find_recipe, json_schema
from pipeline.resolve import Mode
from pipeline.sandbox import check_environment, rootless
from pipeline.smoke import junit, report_json, report_lines
from pipeline.store import Store

app = typer.Typer(
    name="relbuild",
    help="Turns YAML recipes into container images from RPM repositories, and ships only the bytes that were tested.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
store_app = typer.Typer(help="Look after the store.", no_args_is_help=True)
app.add_typer(store_app, name="store")

IN_A_NAMESPACE = ("build", "smoke", "run", "doctor", "store")
"""Commands that an ordinary user runs as root of its own user namespace: they make containers, or remove what is
owned by subordinate ids."""

CHECKOUT = Path(pipeline.__file__).parents[1]
"""Where recipes/ and templates/ stand when relbuild runs from a checkout."""

# --- what the options are called, once --------------------------------------------------------------

JsonOption = Annotated[bool, typer.Option("--json", help="One machine-readable result on stdout.")]
ProgressOption = Annotated[Look, typer.Option("--progress", help="How progress is shown, on stderr.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where content is kept (default: the user's cache directory).")
]
RecipeArgument = Annotated[str, typer.Argument(help="A recipe's file, or its name in recipes/.", show_default=False)]
PlatformOption = Annotated[str | None, typer.Option("--platform", help="Another platform than the recipe's.")]
ArchOption = Annotated[list[str] | None, typer.Option("--arch", help="Another architecture than the recipe's.")]
RepositoriesOption = Annotated[
    Path | None,
    typer.Option("--repositories", help="The file that defines platforms (default: beside the recipe)."),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use what the store holds and nothing else.")]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", help="An OCI runtime with runc's command line (default: runc, else crun)."),
]

FullOption = Annotated[bool, typer.Option("--full", help="Also ask what takes long: `smoke.neighbours`.")]
SubjectArgument = Annotated[
    str, typer.Argument(help="An image's OCI layout, or a recipe: its file, or its name.", show_default=False)
]


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What the process was started with, read here and nowhere else."""

    progress: Progress
    as_json: bool

    def workshop(self, store: Path | None, *, offline: bool = False, runtime: str | None = None) -> Workshop:
        environment = dict(os.environ)
        home = Path(environment.get("HOME", "/root"))
        cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "relbuild"
        return Workshop(
            store=Store.open(store or cache / "store"),
            progress=self.progress,
            environment=environment,
            clock=time.time,
            offline=offline,
            runtime=runtime,
        )


def _perform(act: Callable[[_Surroundings], int], look: Look, as_json: bool) -> None:
    """Run a command's body with live progress around it, and exit with its status."""
    progress = open_progress(look)
    try:
        status = act(_Surroundings(progress, as_json))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except Exception as error:
        if isinstance(progress, Live):
            progress.close()
        status = report_error(error, as_json=as_json)
    finally:
        if isinstance(progress, Live):
            progress.close()
    sys.exit(status)


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _answer(value: object) -> None:
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))


def _recipe(name: str) -> Path:
    return find_recipe(name, [Path("recipes"), CHECKOUT / "recipes"])


def _order(
    name: str,
    platform: str | None,
    arch: list[str] | None,
    repositories: Path | None,
    *,
    mode: Mode = Mode.DEFAULT,
    smoke: bool = True,
    retest: bool = False,
    compression: Compression = Compression.GZIP,
    output: Path = Path("output"),
    full: bool = False,
) -> Order:
    path = _recipe(name)
    beside = [path.parent / "repositories.yaml", CHECKOUT / "recipes" / "repositories.yaml"]
    chosen = repositories or next((file for file in beside if file.exists()), beside[0])
    return Order(
        recipe=path,
        repositories=chosen,
        platform=platform,
        architectures=tuple(arch or ()),
        mode=mode,
        smoke=smoke,
        retest=retest,
        compression=compression,
        output=output,
        full=full,
    )


# --- commands ------------------------------------------------------------------------------------------


@app.command("build")
def build_command(
    recipes: Annotated[list[str], typer.Argument(help="Recipes: files, or names in recipes/.", show_default=False)],
    platform: PlatformOption = None,
    arch: ArchOption = None,
    repositories: RepositoriesOption = None,
    locked: Annotated[bool, typer.Option("--locked", help="Refuse to build if the lock is missing or stale.")] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Resolve anew even if the lock is fresh.")] = False,
    offline: OfflineOption = False,
    full: FullOption = False,
    no_smoke: Annotated[
        bool, typer.Option("--no-smoke", help="Do not launch the image; it counts as untested.")
    ] = False,
    retest: Annotated[bool, typer.Option("--retest", help="Launch again even if this image already passed.")] = False,
    compression: Annotated[Compression, typer.Option(help="How layers are compressed.")] = Compression.GZIP,
    output: Annotated[Path, typer.Option(help="Where the layout and the report go.")] = Path("output"),
    archive: Annotated[ArchiveKind | None, typer.Option(help="Also write one file to hand on.")] = None,
    runtime: RuntimeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Build images: resolve, lock, fetch, verify, layer, run scriptlets, pack, launch, test."""

    def act(around: _Surroundings) -> int:
        if locked and upgrade:
            raise UsageError("options-contradict", "--locked and --upgrade contradict each other", hint="give one")
        mode = Mode.LOCKED if locked else Mode.UPGRADE if upgrade else Mode.DEFAULT
        orders = [
            _order(
                name,
                platform,
                arch,
                repositories,
                mode=mode,
                smoke=not no_smoke,
                retest=retest,
                compression=compression,
                output=output,
                full=full,
            )
            for name in recipes
        ]
        workshop = around.workshop(store, offline=offline, runtime=runtime)
        results: list[Built] = []
        for order in orders:
            built = build(order, workshop)
            if archive is not None:
                target = output / f"{built.image.name}.{archive}.tar"
                write_archive(built.layout, target, archive)
                _say(f"wrote {target} ({size_text(target.stat().st_size)})")
            _say(*built_as_lines(built))
            results.append(built)
        if around.as_json:
            _answer({"built": [built_as_json(built) for built in results]})
        failed = [built for built in results if built.report is not None and not built.report.passed]
        if failed:
            raise SmokeError(
                "smoke-failed",
                "did not pass: " + ", ".join(built.image.name for built in failed),
                hint=f"see {failed[0].report_folder}/ for the answers and the containers' logs",
            )
        return 0

    _perform(act, progress, as_json)


@app.command("lock")
def lock_command(
    recipe: RecipeArgument,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if the lock is missing or stale.")
    ] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Resolve anew even if the lock is fresh.")] = False,
    platform: PlatformOption = None,
    arch: ArchOption = None,
    repositories: RepositoriesOption = None,
    offline: OfflineOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Resolve only, write the lock, and show what changed."""

    def act(around: _Surroundings) -> int:
        mode = Mode.LOCKED if check else Mode.UPGRADE if upgrade else Mode.DEFAULT
        locked = lock_recipe(
            _order(recipe, platform, arch, repositories, mode=mode), around.workshop(store, offline=offline)
        )
        _say(*locked_as_lines(locked))
        if around.as_json:
            _answer(locked_as_json(locked))
        return 0

    _perform(act, progress, as_json)


@app.command("explain")
def explain_command(
    recipe: RecipeArgument,
    package: Annotated[str, typer.Argument(help="A package's name.", show_default=False)],
    platform: PlatformOption = None,
    arch: ArchOption = None,
    repositories: RepositoriesOption = None,
    offline: OfflineOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Say why a package is in the image."""

    def act(around: _Surroundings) -> int:
        text = explain_package(
            _order(recipe, platform, arch, repositories), around.workshop(store, offline=offline), package
        )
        if around.as_json:
            _answer({"package": package, "explanation": text})
        else:
            print(text)
        return 0

    _perform(act, progress, as_json)


@app.command("inspect")
def inspect_command(
    image: Annotated[Path, typer.Argument(help="An OCI layout.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show what an image is made of."""

    def act(around: _Surroundings) -> int:
        found = read_layout(image)
        if around.as_json:
            _answer(image_as_json(found))
        else:
            print("\n".join(image_as_lines(found)))
        return 0

    _perform(act, Look.NONE, as_json)


@app.command("validate")
def validate_command(
    image: Annotated[Path, typer.Argument(help="An OCI layout.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Recompute every digest, size and diff_id of an image, and report all that does not match."""

    def act(around: _Surroundings) -> int:
        problems = validate(image)
        if problems:
            raise VerificationError.of(problems)
        _say(f"{image}: every digest, size and diff_id holds")
        if around.as_json:
            _answer({"valid": True})
        return 0

    _perform(act, Look.NONE, as_json)


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
    """Launch a built image again and ask the recipe's checks. An image without its recipe is asked whether it listens
    on its exposed ports and no other, and stops."""

    def act(around: _Surroundings) -> int:
        workshop = around.workshop(store, runtime=runtime)
        if record_checks:
            launched, plan = _subject(subject, workshop, image, output)
            _say("# a draft: keep what must hold, and say why it must")
            drafted = record(
                launched,
                plan,
                store=workshop.store,
                station=workshop.station(),
                progress=workshop.progress,
                settling=settling,
            )
            print(drafted, end="")
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
            order = _order(subject, None, None, None, output=output, full=full)
            name, report = smoke_image(order, workshop, image, keeping)
        _say(*report_lines(report))
        if junit_file is not None:
            junit_file.write_bytes(junit(report, name))
        if around.as_json:
            _answer(report_json(report))
        if not report.passed:
            raise SmokeError("smoke-failed", f"{name} did not pass", hint="see the lines above")
        return 0

    _perform(act, progress, as_json)


def _subject(text: str, workshop: Workshop, layout: Path | None, output: Path) -> tuple[Image, SmokePlan]:
    """The image that a person means, and what is asked of it."""
    if is_layout(text):
        adopted = adopt_layout(Path(text), store=workshop.store)
        return adopted, plan_of(adopted)
    image, plan = launchable(_order(text, None, None, None, output=output), workshop)
    return (image if layout is None else adopt_layout(layout, store=workshop.store)), plan


@app.command("run")
def run_command(
    subject: SubjectArgument,
    instances: Annotated[int, typer.Option("--instances", min=1, max=100, help="How many.")] = 1,
    cpus: Annotated[str | None, typer.Option("--cpus", help="Processors of each, such as 0.5.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Memory of each, such as 512MiB.")] = None,
    pids: Annotated[int | None, typer.Option("--pids", min=1, help="Processes and threads of each.")] = None,
    bandwidth: Annotated[
        str | None, typer.Option("--bandwidth", help="Network of each, each way, such as 100mbit.")
    ] = None,
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
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE.")] = None,
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

    def act(around: _Surroundings) -> int:
        workshop = around.workshop(store, runtime=runtime)
        image, plan = _subject(subject, workshop, None, output)
        limits = limits_of(plan.limits, cpus=cpus, memory=memory, pids=pids, bandwidth=bandwidth)
        order = order_of(
            instances, limits, publish=publish or (), volume=volume or (), env=env or (), config=config or ()
        )
        with (
            stopped_by_signals() as stopping,
            contextlib.closing(Follower(stopping, shown=not as_json and not shell)) as follower,
            run_image(
                image,
                order,
                store=workshop.store,
                station=workshop.station(),
                progress=workshop.progress,
                follow=follower,
            ) as run,
        ):
            if isinstance(workshop.progress, Live):
                workshop.progress.close()
            _say(*describe(run))
            code = attend(run, shell=shell, stopping=stopping)
        if around.as_json:
            _answer(run_as_json(run, code))
        return code

    _perform(act, progress, as_json)


@app.command("doctor")
def doctor_command(as_json: JsonOption = False) -> None:
    """Say what this machine has of what relbuild needs."""

    def act(around: _Surroundings) -> int:
        findings = check_environment()
        if around.as_json:
            _answer([{"name": f.name, "ok": f.ok, "detail": f.detail, "needed_for": f.needed_for} for f in findings])
        else:
            print("\n".join(environment_as_lines(findings)))
        return 0 if all(finding.ok for finding in findings) else EnvironmentLacking.exit_code

    _perform(act, Look.NONE, as_json)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of recipes, for editors."""

    def act(around: _Surroundings) -> int:
        _answer(json_schema())
        return 0

    _perform(act, Look.NONE, False)


@app.command("version")
def version_command(as_json: JsonOption = False) -> None:
    """Print relbuild's version and that of the rpm library."""

    def act(around: _Surroundings) -> int:
        if around.as_json:
            _answer({"relbuild": pipeline.__version__, "rpm": library_version(), "format": pipeline.FORMAT})
        else:
            print(f"relbuild {pipeline.__version__} (rpm {library_version()}, format {pipeline.FORMAT})")
        return 0

    _perform(act, Look.NONE, as_json)


@store_app.command("du")
def store_du_command(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say what the store holds and how much of the disk it takes."""

    def act(around: _Surroundings) -> int:
        usage = around.workshop(store).store.usage()
        if around.as_json:
            _answer(usage)
        else:
            print("\n".join(f"{size_text(count):>10}  {name}" for name, count in sorted(usage.items())))
        return 0

    _perform(act, Look.NONE, as_json)


@store_app.command("gc")
def store_gc_command(
    older_than: Annotated[int, typer.Option("--older-than", min=0, help="Days since the last use.")] = 30,
    locks: Annotated[Path, typer.Option("--locks", help="Packages named by locks below here are kept.")] = Path(),
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what was not used for some days. Packages that a lock names are kept: a repository may have
    dropped them."""

    def act(around: _Surroundings) -> int:
        workshop = around.workshop(store)
        keep = locked_packages(locks)
        freed = workshop.store.collect(workshop.clock() - older_than * 86400, keep)
        if around.as_json:
            _answer({"freed": freed, "kept_packages": len(keep)})
        else:
            _say(f"freed {size_text(sum(freed.values()))}; {len(keep)} packages are kept for locks below {locks}")
        return 0

    _perform(act, Look.NONE, as_json)


@store_app.command("fsck")
def store_fsck_command(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Recompute every blob's digest; what is damaged is removed, so that the next build makes it anew."""

    def act(around: _Surroundings) -> int:
        damaged = around.workshop(store).store.check()
        if around.as_json:
            _answer({"damaged": [str(digest) for digest in damaged]})
        if damaged:
            raise VerificationError(
                "blob-damaged",
                f"{len(damaged)} damaged blobs were removed: {', '.join(str(d) for d in damaged[:5])}",
                hint="build again: what is missing is made or fetched anew",
            )
        _say("every blob is whole")
        return 0

    _perform(act, Look.NONE, as_json)


def main() -> None:
    """Run the command line. `relbuild RECIPE` is `relbuild build RECIPE`."""
    arguments = sys.argv[1:]
    commands = {command.name for command in app.registered_commands} | {"store"}
    if arguments and arguments[0] not in commands and arguments[0] != "--help":
        arguments = ["build", *arguments]
    if os.geteuid() != 0 and arguments and arguments[0] in IN_A_NAMESPACE and "--help" not in arguments:
        # What needs root says so itself, and what does not goes on.
        with contextlib.suppress(EnvironmentLacking):
            rootless.enter()
    app(arguments)
