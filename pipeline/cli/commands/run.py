"""The `run` command: launch an image or a recipe under its limits, and follow its log."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.changed_configuration import changed_configuration, with_changes
from pipeline.cli.detached_start import leave_terminal, start_supervisor
from pipeline.cli.instance_shell import run_shell
from pipeline.cli.limit_options import RequestedLimits, limits_of, with_limits
from pipeline.cli.log_follower import Follower
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import close
from pipeline.cli.pulled_image import pull_verified
from pipeline.cli.recipe_argument import image_to_launch
from pipeline.cli.run_options import run_options
from pipeline.cli.stop_request import StopRequest, stopped_by_signals
from pipeline.errors import UsageError
from pipeline.instances import HostedInstance, InstanceRecord, host_instance
from pipeline.launch import STOP_TIMEOUT, ImageRun, RunOptions, default_smoke_plan, run_image
from pipeline.mirror.address_parser import is_address
from pipeline.model.checks import stop_check
from pipeline.model.image import Image
from pipeline.model.smoke import SmokePlan
from pipeline.oci import media_types

_POLL_INTERVAL = 0.2
"""Seconds between checks whether the instances still run."""


def _makes_containers(given: Mapping[str, Any]) -> bool:
    """Return whether this process makes the containers, and not one that it starts."""
    return not given["detach"] or given["supervised"] is not None


@command(rank=90, in_user_namespace=_makes_containers)
@with_limits
def run_command(
    context: CommandContext,
    *,
    subject: options.SubjectArgument,
    platform: options.PlatformOption,
    repositories: options.RepositoriesOption,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it runs; `ps`, `logs`, `exec`, `stop` and `rm` find it.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the instance (default: the image's, with a number).")
    ] = None,
    instances: Annotated[int, typer.Option("--instances", min=1, max=100, help="Number of instances.")] = 1,
    asked: RequestedLimits,
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
            help="NAME:PATH: a volume kept between runs, one per instance; or FOLDER:PATH: a folder of this machine.",
        ),
    ] = None,
    env: options.EnvOption,
    config: Annotated[
        list[str] | None, typer.Option("--config", help="FILE:PATH: mount a file of this machine over the image's.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: another value than the recipe's; its templates are rendered anew."),
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option("--edit", help="PATH: edit this file of the image before the start ($VISUAL, else $EDITOR)."),
    ] = None,
    shell: Annotated[bool, typer.Option("--shell", help="Open a shell in the first instance.")] = False,
    supervised: Annotated[
        int | None, typer.Option("--supervised", help="The descriptor of who started it.", hidden=True)
    ] = None,
    arch: options.RunArchOption,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="For a reference: the public key that must have signed it.", show_default=False),
    ] = None,
    known_as: options.SignedAsOption,
    allow_stale: options.StaleOption,
    rules: options.RulesOption,
    output: Annotated[options.OutputFolder, typer.Option(help="Folder of layouts.", envvar=options.OUTPUT_VARIABLE)],
    runtime: options.RuntimeOption,
) -> int:
    """Launch an image or a recipe under its limits.

    A reference on a mirror is verified first, as `verify` does.
    Its log is followed until Ctrl-C, unless it is detached.
    """
    _refuse_combination(instances, detach=detach, own=bool(name or settings or edit), shell=shell)
    _refuse_unused(
        context,
        subject,
        for_references={"--key": key, "--as": known_as, "--allow-stale": allow_stale, "--rules": rules},
        for_recipes={"--platform": platform, "--repositories": repositories},
    )
    if detach and supervised is None:
        return start_supervisor(sys.argv[1:], context.environment)
    build_env = context.build_env(runtime=runtime)
    if is_address(subject):
        image = pull_verified(
            context, subject, build_env, key=key, arch=arch, known_as=known_as, allow_stale=allow_stale, rules=rules
        ).image
        plan = default_smoke_plan(image)
    else:
        image, plan = image_to_launch(
            subject, build_env, None, output, arch, platform=platform, repositories=repositories
        )
    wanted = run_options(
        instances,
        limits_of(plan.limits, asked),
        publish=publish or (),
        volume=volume or (),
        env=env or (),
        config=config or (),
        surroundings=context.environment,
    )
    changed = changed_configuration(subject, image, settings or (), output, build_env, repositories=repositories)
    within = stop_within(plan)
    record = _record(image, subject, within, now=context.clock(), detached=detach)

    def configured(hosted: HostedInstance | None, plain: RunOptions) -> RunOptions:
        if hosted is None:
            return plain
        if edit:
            close(build_env.progress)  # The terminal is the editor's.
        return with_changes(plain, hosted, image, changed, edited=edit or (), build_env=build_env)

    with (
        stopped_by_signals() as stopping,
        _hosting(context, record, name, instances) as hosted,
        contextlib.closing(Follower(shown=not (context.as_json or shell or detach), told=stopping.arm)) as follower,
        run_image(
            image,
            wanted,
            store=build_env.store,
            sandboxes=build_env.sandboxes(),
            progress=build_env.progress,
            follow=_logging(hosted, follower),
            configured=functools.partial(configured, hosted),
        ) as run,
        hosted.serving(run, stopping.ask) if hosted is not None else contextlib.nullcontext(),
    ):
        close(build_env.progress)
        print_lines(*run_as_lines(run), *(change_lines(hosted) if hosted is not None else ()))
        if supervised is not None and hosted is not None:
            _tell_detached(context, hosted.record)
            leave_terminal(supervised)
        code = wait_for_run(run, shell=shell, stopping=stopping, within=within)
        if hosted is not None:
            try:
                hosted.ended(code)
            except OSError as error:  # A full disk does not change the exit status.
                build_env.progress.warn(f"the end of '{hosted.record.name}' was not recorded: {error.strerror}")
    if shell and stopping.number is not None:
        code = 128 + stopping.number  # The signal ended the shell, which is what the person ran.
    if not detach:
        context.answer(_json(run, code))
    return code


def _refuse_combination(instances: int, *, detach: bool, own: bool, shell: bool) -> None:
    if instances > 1 and (detach or own):
        raise UsageError(
            "one-instance-only",
            "--detach, --name, --set and --edit are for one instance, and not for several with --instances",
            hint="start them one after the other: each has its own name and settings",
        )
    if detach and shell:
        raise UsageError(
            "shell-detached",
            "a detached instance has no shell here",
            hint="leave out --shell, and open one with `relbuild exec NAME`",
        )


def _refuse_unused(
    context: CommandContext,
    subject: str,
    *,
    for_references: Mapping[str, object],
    for_recipes: Mapping[str, object],
) -> None:
    """Refuse options that would be ignored, unless a variable of the environment sets them."""
    reference = is_address(subject)
    unused = for_recipes if reference else for_references
    given = [name for name, value in unused.items() if value and _variable(name) not in context.environment]
    if given:
        raise UsageError(
            "option-unused",
            f"'{subject}' is {'a reference' if reference else 'no reference'}: {', '.join(given)} would be ignored",
            hint="leave the option out, or run the recipe" if reference else "leave the option out, or run a reference",
        )


def _variable(option: str) -> str:
    return f"RELBUILD_{option.removeprefix('--').upper()}"


def stop_within(plan: SmokePlan) -> int:
    """Return the milliseconds that an instance gets to stop: the recipe's, else ten seconds'."""
    found = [check.within for check in plan.checks if check.kind == stop_check.DECLARATION.name]
    return found[-1] if found else int(STOP_TIMEOUT * 1000)


def _record(image: Image, subject: str, within: int, *, now: float, detached: bool) -> InstanceRecord:
    return InstanceRecord(
        name="",
        product=image.name,
        version=dict(image.config.labels).get(media_types.VERSION, ""),
        digest=image.digest,
        subject=subject,
        started=int(now * 1000),
        detached=detached,
        stop_signal=image.config.stop_signal or stop_check.DEFAULT_SIGNAL,
        stop_within=within,
    )


@contextlib.contextmanager
def _hosting(
    context: CommandContext, record: InstanceRecord, name: str | None, instances: int
) -> Iterator[HostedInstance | None]:
    """Host a single instance, which other commands find by its name; None for several."""
    if instances > 1:
        yield None
    else:
        with host_instance(context.open_store().instances, record, name, context.clock) as hosted:
            yield hosted


def _logging(hosted: HostedInstance | None, follower: Follower) -> Callable[[str, bytes], None]:
    """Return a function that keeps the output of a hosted instance, and shows it.

    If it can no longer be shown (a closed terminal), it is still kept.
    """
    if hosted is None:
        return follower
    shown = True

    def follow(name: str, piece: bytes) -> None:
        nonlocal shown
        hosted.log(piece)
        try:
            if shown:
                follower(name, piece)
        except (OSError, ValueError):
            shown = False

    return follow


def change_lines(hosted: HostedInstance) -> Iterator[str]:
    """Yield lines about an instance's configuration, if it is not the one that was tested."""
    if hosted.record.changes:
        yield f"  with changes: {', '.join(hosted.record.changes)}; this is not the configuration that was tested"
    if hosted.folder.files.exists():
        yield f"  its own files are kept in {hosted.folder.files} until `relbuild rm {hosted.folder.name}`"


def _tell_detached(context: CommandContext, record: InstanceRecord) -> None:
    name = record.name
    print_lines(f"`relbuild logs -f {name}` follows its log, `relbuild stop {name}` stops it")
    context.answer({"name": name, "ports": [{"host": port.host, "container": port.container} for port in record.ports]})


# --- while they run ------------------------------------------------------------------------------------------


def wait_for_run(run: ImageRun, *, shell: bool, stopping: StopRequest, within: int) -> int:
    """Wait until the instances end by themselves or somebody stops them.

    `within`: milliseconds that they get to stop. Returns the exit code.
    """
    stopping.armed = True
    streams = None
    try:
        if shell and not stopping.asked.is_set():
            print_lines(f"shell in {run.instances[0].name}; leaving the shell stops the instance")
            streams = run_shell(run.instances[0], stopping)
        else:
            while not stopping.asked.is_set() and not run.wait(_POLL_INTERVAL):
                pass
        _stop(run, lambda: (within if stopping.within is None else stopping.within) / 1000)
    except KeyboardInterrupt:
        for instance in run.instances:
            instance.kill()
    if streams is not None:
        streams.finish()
    for instance in run.instances:
        why = "; killed: out of memory, give it more with --memory" if instance.usage().oom_kills else ""
        print_lines(f"{instance.name} ended with exit code {instance.exit_code}{why}")
    return run.exit_code


def _stop(run: ImageRun, within: Callable[[], float]) -> None:
    living = [instance.name for instance in run.instances if instance.alive]
    if living:
        print_lines(f"stopping {', '.join(living)} with {run.stop_signal or 'SIGTERM'} (press Ctrl-C again to kill)")
        run.stop(within)


def run_as_lines(run: ImageRun) -> Iterator[str]:
    """Yield lines about instances that have just been started: addresses, ports, limits.

    The limits are those that are not enforced.
    """
    for instance, ports in zip(run.instances, run.ports, strict=True):
        places = [f"127.0.0.1:{host} → {container}" for host, container in ports]
        address = f", address {instance.address}" if instance.address else ""
        yield f"{instance.name} runs{address}" + (f", {', '.join(places)}" if places else "")
        for reading in instance.readings():
            if not reading.enforced:
                yield f"  ! limit {reading.name} is not enforced: {reading.reason}"


def _json(run: ImageRun, code: int) -> Mapping[str, object]:
    return {
        "instances": [
            {
                "name": instance.name,
                "exit_code": instance.exit_code,
                "ports": [{"host": host, "container": container} for host, container in ports],
            }
            for instance, ports in zip(run.instances, run.ports, strict=True)
        ],
        "exit_code": code,
    }
