"""The `nightly` command: build, test and publish what changed in a catalogue."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines, report_error
from pipeline.cli.night_format import night_lines, planned_as_json, planned_lines
from pipeline.cli.path_arguments import (
    JUNIT_MARK,
    STEP_SUMMARY_VARIABLE,
    SUMMARY_MARK,
    is_step_summary,
    require_folder,
    require_key_file,
    require_output,
    require_present_key,
    require_report_file,
)
from pipeline.compression import Compression
from pipeline.digest import digest_file
from pipeline.errors import RelbuildError, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.address_parser import parse_mirror_address
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.model.advisory import Threshold
from pipeline.model.json_form import to_json
from pipeline.model.night_record import NightlyRun
from pipeline.nightly.exit_status import FAILED_EXIT, with_exit_code
from pipeline.nightly.no_change import ResolveTag, repeat_unchanged, request_digest
from pipeline.nightly.output_sweep import sweep_output
from pipeline.nightly.renewal_due import known_signers, products_due
from pipeline.shipped import platforms_file
from pipeline.site import junit_xml, refuse_newer_site, require_site_folder, summary_markdown, write_site
from pipeline.transfer import Network, fetch_document

_PAGES = "nightly"
"""The folder of the pages in a directory mirror."""


@dataclass(frozen=True, slots=True)
class NightRequest:
    """The options of `relbuild nightly`, parsed.

    `destination` is the mirror as it was typed, `pages` the folder that pages are written to.
    """

    catalogue: tuple[Path, ...]
    to: Address
    destination: str
    key: Path | None
    former: tuple[Path, ...]
    pages: Path | None
    only: tuple[str, ...]
    labels: tuple[str, ...]
    changed_since: str | None
    containing: tuple[str, ...]
    locked: bool
    write_locks: bool
    jobs: int | None
    scheduler: str | None
    plain_scheduler: bool
    send_env: tuple[str, ...]
    platform: str | None
    architectures: tuple[str, ...]
    repositories: Path | None
    rules: Path | None
    known_as: str
    full: bool
    retest: bool
    compression: Compression
    output: Path
    offline: bool
    runtime: str | None

    @property
    def partial(self) -> bool:
        """True if only a part of the catalogue is asked for."""
        return bool(self.only or self.labels or self.containing or self.changed_since is not None)


@command(
    rank=210,
    in_user_namespace=True,
    reads_repositories=True,
    interrupted="published products stay published, and what was built stays in the store: run it again to go on",
)
def nightly_command(
    context: CommandContext,
    *,
    catalogue: Annotated[list[Path], typer.Argument(help="Folders of recipes, or recipe files.", show_default=False)],
    to: options.MirrorOption,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            help="The signing key. A plan takes the public one, too; without any it cannot tell if the key changed.",
            envvar=options.SIGNING_KEY_VARIABLE,
        ),
    ] = None,
    former: options.FormerKeyOption = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be done and why, and do nothing.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this product and its parents (repeatable).")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", help="Only products whose image has this label, KEY=VALUE (repeatable)."),
    ] = None,
    changed_since: Annotated[
        str | None,
        typer.Option(
            "--changed-since", help="Only products whose files differ from this git revision, and their children."
        ),
    ] = None,
    containing: Annotated[
        list[str] | None, typer.Option("--containing", help="Only products whose image has this package (repeatable).")
    ] = None,
    locked: Annotated[bool, typer.Option("--locked", help="Build the committed locks; do not resolve.")] = False,
    write_locks: Annotated[
        bool, typer.Option("--write-locks", help="Write the new locks beside the recipes of published products.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", min=1, help="Products at a time (default: one for each processor, more while images are tested)."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="Run on the workers of this Dask scheduler, tcp:// or tls://HOST:PORT."),
    ] = None,
    plain_scheduler: Annotated[
        bool,
        typer.Option(
            "--plain-scheduler", help="Allow sending the key and its password over tcp:// beyond this machine."
        ),
    ] = False,
    send_env: Annotated[
        list[str] | None,
        typer.Option("--send-env", help="Also pass this environment variable to workers (repeatable)."),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            "--site",
            help="Output folder of the pages (default: nightly/ in a directory mirror, for runs of all products).",
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write a JUnit report into this file.")] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary",
            help=f"Also write a summary in Markdown into this file; the one in {STEP_SUMMARY_VARIABLE} is appended to.",
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option("--threshold", help="Fail (9) if a security fix is missing, SEVERITY[:DAYS], e.g. important:7."),
    ] = None,
    platform: options.PlatformOption,
    arch: options.ArchOption,
    repositories: options.RepositoriesOption,
    rules: options.RulesOption,
    known_as: options.PublicNameOption,
    full: options.FullOption,
    retest: Annotated[bool, typer.Option("--retest", help="Build and test all products, changed or not.")] = False,
    compression: options.CompressionOption,
    output: Annotated[
        options.OutputFolder,
        typer.Option(help="Output folder of layouts and reports.", envvar=options.OUTPUT_VARIABLE),
    ],
    offline: options.OfflineOption,
    runtime: options.RuntimeOption,
) -> int:
    """Build, test and publish what changed in a catalogue.

    Also write the morning's page.
    """
    if locked and write_locks:
        raise UsageError(
            "options-contradict", "--locked and --write-locks contradict each other", hint="give only one of them"
        )
    if key is None and not plan_only:
        raise UsageError("key-missing", "publishing needs a signing key", hint="add --key FILE")
    if key is not None:
        require_key_file(key)
    require_present_key(key, former)
    for path in former or ():
        require_key_file(path)
    if junit is not None:
        require_report_file(junit, "--junit", JUNIT_MARK)
    appends = summary is not None and is_step_summary(summary, context.environment)
    if summary is not None:
        require_report_file(summary, "--summary", None if appends else SUMMARY_MARK)
    address = parse_mirror_address(to, "--to")
    served = address.form.served_folder(address)
    request = NightRequest(
        catalogue=tuple(catalogue),
        to=address,
        destination=to,
        key=key,
        former=tuple(former or ()),
        pages=site or (served / _PAGES if served is not None else None),
        only=tuple(only or ()),
        labels=tuple(labels or ()),
        changed_since=changed_since,
        containing=tuple(containing or ()),
        locked=locked,
        write_locks=write_locks,
        jobs=jobs,
        scheduler=scheduler,
        plain_scheduler=plain_scheduler,
        send_env=tuple(send_env or ()),
        platform=platform,
        architectures=options.split_architectures(arch),
        repositories=repositories,
        rules=rules,
        known_as=known_as,
        full=full,
        retest=retest,
        compression=compression,
        output=require_output(output),
        offline=offline,
        runtime=runtime,
    )
    if plan_only:
        # Here and not above, as below: in most nights nothing changed, and then the module is not needed.
        from pipeline.cli.nightly_run import plan_requested_night

        planned = plan_requested_night(request, context)
        status = FAILED_EXIT if any(one.action == "failed" for one in planned) else 0
        print_lines(*planned_lines(planned, _platforms(request)))
        context.answer({"plan": [planned_as_json(one) for one in planned], "exit_code": status})
        return status
    if site is not None:
        _require_site(site, served)
    if request.pages is not None:
        refuse_newer_site(request.pages)
    limit = Threshold.parse(threshold) if threshold is not None else None
    night = with_exit_code(_night(request, context), limit)
    # First what became of the products: where a disk is full, the reports cannot be written either.
    print_lines(*night_lines(night, _platforms(request)))
    context.answer(to_json(night))
    sweep_output(request.output, (one.name for one in night.products))
    reports: list[tuple[Path, Callable[[], object]]] = []
    if junit is not None:
        reports.append((junit, partial(junit.write_bytes, junit_xml(night))))
    if summary is not None:
        reports.append((summary, partial(_write_summary, summary, summary_markdown(night), appends=appends)))
    if request.pages is not None and (site is not None or not request.partial):
        reports.append((request.pages, partial(write_site, night, request.pages, mirror="../" if site is None else "")))
    return _write_reports(reports) or night.exit_code


def _require_site(site: Path, served: Path | None) -> None:
    """Refuse a folder of pages that is no folder, the mirror, or somebody's. Raises UsageError."""
    if served is not None and os.path.realpath(site) == os.path.realpath(served):
        raise UsageError(
            "site-not-own",
            "--site is the folder of the mirror itself",
            place=str(site),
            hint=f"leave --site out: the pages are written to {site / _PAGES}",
        )
    require_site_folder(require_folder(site))


def _platforms(request: NightRequest) -> Path:
    """Return the file of platforms as it was given, or as the catalogue has it."""
    folders = (place if place.is_dir() else place.parent for place in request.catalogue)
    return request.repositories or platforms_file(*folders)


def _write_reports(reports: Sequence[tuple[Path, Callable[[], object]]]) -> int:
    """Write each report; print the errors of those that cannot be written.

    Returns the exit status of the first error, or 0.
    """
    failed = 0
    for path, write in reports:
        try:
            write()
        except (RelbuildError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)
            status = report_error(error, as_json=False)
            failed = failed or status
    return failed


def _write_summary(path: Path, text: str, *, appends: bool) -> None:
    """Write a summary, below what is in the file where it `appends`."""
    with path.open("a" if appends else "w") as file:
        # A blank line, or what is above could swallow the headline: text without an end, a block of HTML.
        file.write(f"\n\n{text}" if os.fstat(file.fileno()).st_size else text)


def _night(request: NightRequest, context: CommandContext) -> NightlyRun:
    """Run a night: repeat the last one's record if nothing changed at all, else the whole."""
    environment = context.environment

    def get(url: str, limit: int) -> bytes:
        return fetch_document([url], limit=limit, network=Network.of(environment))

    made = None
    if not request.retest and not request.offline and request.changed_since is None:
        made = request_digest(_result_settings(request))
        store = context.open_store()
        with _tags(request.to, context) as resolve:
            night = repeat_unchanged(
                store, made, environment=environment, clock=context.clock, get=get, resolve=resolve
            )
        if night is not None:
            waiting = products_due(
                store,
                str(request.to),
                (one.name for one in night.products if one.published.digest),
                night.began,
                key=known_signers(store, request.key, request.former),
            )
            if waiting:
                from pipeline.cli.nightly_run import renew_night

                renew_night(request, context, night)
            return night
    from pipeline.cli.nightly_run import run_whole_night

    return run_whole_night(request, context, made, get)


def _result_settings(request: NightRequest) -> dict[str, object]:
    """Return the settings of a night that its result depends on.

    They are all options but for the executor, parallelism and output; and the working directory, because paths are
    relative.
    """
    given = {
        field.name: str(getattr(request, field.name))
        for field in dataclasses.fields(request)
        if field.name not in {"key", "former", "jobs", "scheduler", "plain_scheduler", "send_env", "output"}
    }
    key = str(digest_file(request.key)) if request.key is not None and request.key.is_file() else ""
    former = [str(digest_file(path)) if path.is_file() else "" for path in request.former]
    return {**given, "key": key, **({"former": former} if former else {}), "folder": str(Path.cwd())}


@contextlib.contextmanager
def _tags(to: Address, context: CommandContext) -> Iterator[ResolveTag]:
    """Open the mirror for a block, and yield the function that resolves its tags."""
    if not to.form.exists(to):
        yield lambda product, tag: None
        return
    with MirrorAccess(context.environment, context.progress, context.clock).mirror(to) as mirror:
        yield lambda product, tag: mirror.repository(product).resolve(tag)


# --- output --------------------------------------------------------------------------------------
