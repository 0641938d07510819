"""Run or plan a night from a `nightly` request, or renew the tags of an unchanged night."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pipeline
import pipeline.process as processes
from pipeline.cli.app import CommandContext
from pipeline.cli.key_files import PASSWORD_VARIABLES, open_former_keys, password
from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.errors import RelbuildError, UsageError
from pipeline.model.absolute_path import absolute
from pipeline.model.night_record import NightlyRun
from pipeline.nightly.catalogue import ProductSelection
from pipeline.nightly.executors.executor_protocol import Executor
from pipeline.nightly.executors.open_executor import open_executor
from pipeline.nightly.exit_status import something_failed
from pipeline.nightly.job import RunSettings
from pipeline.nightly.no_change import FetchDocument, remember_night
from pipeline.nightly.previous_night import PreviousNight
from pipeline.nightly.renewal import renew_tags
from pipeline.nightly.renewal_due import known_fingerprint, remember_fingerprint
from pipeline.nightly.run_night import (
    NightOptions,
    PlannedProduct,
    nightly,
    plan_night,
)
from pipeline.nightly.sent_environment import sent_environment
from pipeline.nightly.snapshot import night_snapshot
from pipeline.nightly.typed_paths import TypedPaths
from pipeline.oci import VerifyingKey, load_signing_key, load_verifying_key
from pipeline.prepare import BuildEnvironment
from pipeline.recipes import load_platforms
from pipeline.release import rules_for
from pipeline.release.current_images import mirror_access
from pipeline.repos.variables import environment_names
from pipeline.shipped import platforms_file

if TYPE_CHECKING:
    from pipeline.cli.commands.nightly import NightRequest

GIT_TIMEOUT = 60.0
"""Seconds that git may take to list changed files."""


def run_whole_night(
    request: NightRequest, context: CommandContext, made: Digest | None, get: FetchDocument
) -> NightlyRun:
    """Run a night with all its products.

    If nothing failed, it is remembered under `made`, so that the next night can tell that nothing changed.
    """
    build_env, order, environment = _prepared(request, context)
    previous = _previous_night(request, build_env)
    public = ""

    def executor() -> Executor:
        nonlocal public
        assert request.key is not None
        # A wrong password is an error here, before anything is built.
        ask = _ask_once(request.key, environment)
        public = load_signing_key(request.key, ask, progress=build_env.progress).public.pem.decode()
        return open_executor(
            request.scheduler, build_env.progress, jobs=request.jobs, plain_scheduler=request.plain_scheduler
        )

    done = nightly(order, build_env, executor, previous)
    night = replace(done.night, key=public or previous.key, relbuild=pipeline.__version__)
    if made is not None and not something_failed(night):
        seen = night_snapshot(done.planner, night.products, request.catalogue, made, get)
        if seen is not None:
            remember_night(build_env.store, seen, night)
    return night


def renew_night(request: NightRequest, context: CommandContext, night: NightlyRun) -> None:
    """Renew the signed tag statements of a night in which nothing changed."""
    build_env, order, _ = _prepared(request, context)
    with mirror_access(build_env).mirror(request.to, signs=True) as mirror:
        renew_tags(night.products, order.settings, mirror, build_env)


def plan_requested_night(request: NightRequest, context: CommandContext) -> tuple[PlannedProduct, ...]:
    """Return the decision on each product, without running it."""
    build_env, order, _ = _prepared(request, context)
    return plan_night(order, build_env, _previous_night(request, build_env))


def _previous_night(request: NightRequest, build_env: BuildEnvironment) -> PreviousNight:
    return PreviousNight(request.pages / "nightly.json" if request.pages else Path(), build_env.progress.warn)


def _prepared(request: NightRequest, context: CommandContext) -> tuple[BuildEnvironment, NightOptions, dict[str, str]]:
    build_env = context.build_env(offline=request.offline, runtime=request.runtime)
    repositories = absolute(request.repositories or platforms_file(*map(_folder, request.catalogue)))
    environment = context.environment
    if request.scheduler is not None:
        environment = sent_environment(environment, {*request.send_env, *_named_by(repositories)})
    settings = RunSettings(
        repositories=repositories,
        to=request.to,
        key=absolute(request.key) if request.key else None,
        store=absolute(build_env.store.root),
        output=absolute(request.output),
        environment=environment,
        clock=build_env.clock,
        platform=request.platform,
        architectures=request.architectures,
        fingerprint=_fingerprint(request.key, environment, build_env),
        former=_former_keys(request, context, build_env),
        known_as=request.known_as,
        rules=rules_for(request.to, request.rules, signs=True),
        compression=request.compression,
        locked=request.locked,
        offline=request.offline,
        full=request.full,
        retest=request.retest,
        runtime=_runtime(request.runtime),
        again=_again(request),
    )
    wanted = ProductSelection(
        names=request.only,
        labels=tuple(_label(text) for text in request.labels),
        changed=None if request.changed_since is None else _changed(request.catalogue, request.changed_since),
        containing=request.containing,
    )
    typed = TypedPaths(Path.cwd(), _typed(request))
    return (
        build_env,
        NightOptions(request.catalogue, settings, wanted, request.write_locks, request.destination, typed),
        environment,
    )


def _typed(request: NightRequest) -> tuple[Path, ...]:
    """Return the paths of a request that failures may name."""
    files = (request.repositories, request.rules, request.key, *request.former)
    return (*request.catalogue, request.output, *(path for path in files if path is not None))


def _again(request: NightRequest) -> tuple[str, ...]:
    """Return the command that runs the night again, without its selection of products."""
    words = ["relbuild", "nightly", *map(str, request.catalogue), "--to", request.destination]
    given = (
        ("--key", request.key),
        *(("--former-key", path) for path in request.former),
        ("--platform", request.platform),
        *(("--arch", arch) for arch in request.architectures),
        ("--repositories", request.repositories),
        ("--rules", request.rules),
        ("--as", request.known_as),
        ("--scheduler", request.scheduler),
        ("--compression", None if request.compression is Compression.GZIP else request.compression.value),
    )
    words += [word for name, value in given if value for word in (name, str(value))]
    flags = (("--locked", request.locked), ("--full", request.full), ("--retest", request.retest))
    return (*words, *(name for name, wanted in flags if wanted))


def _named_by(repositories: Path) -> frozenset[str]:
    """Return the environment variables that definitions of repositories name.

    Invalid definitions give an empty set: each product fails on them later, with the whole error.
    """
    try:
        return frozenset().union(*map(environment_names, load_platforms(repositories).values()))
    except RelbuildError:
        return frozenset()


def _runtime(named: str | None) -> str | None:
    """Return a runtime's name, or its path made absolute."""
    return str(absolute(Path(named))) if named and "/" in named else named


def _fingerprint(key: Path | None, environment: dict[str, str], build_env: BuildEnvironment) -> str:
    """Return the fingerprint of the signing key, given as private or public; "" without a key.

    It is remembered in the store, because decrypting a key needs a password and takes a while. A password that a person
    types is put into `environment`, for all workers of this night. Raises UsageError, EnvironmentLacking.
    """
    if key is None:
        return ""
    known = known_fingerprint(build_env.store, key)
    if known:
        return known
    found = str(load_verifying_key(key, _ask_once(key, environment), progress=build_env.progress).fingerprint)
    remember_fingerprint(build_env.store, key, found)
    return found


def _former_keys(
    request: NightRequest, context: CommandContext, build_env: BuildEnvironment
) -> tuple[VerifyingKey, ...]:
    """Load the publisher's former keys, and remember their fingerprints.

    Raises UsageError, EnvironmentLacking.
    """
    former = open_former_keys(request.former, context)
    for path, one in zip(request.former, former, strict=True):
        remember_fingerprint(build_env.store, path, str(one.fingerprint))
    return former


def _ask_once(key: Path, environment: dict[str, str]) -> Callable[[], bytes]:
    def ask() -> bytes:
        given = password(key, environment, public="--plan")()
        environment[PASSWORD_VARIABLES[0]] = given.decode()
        return given

    return ask


def _folder(place: Path) -> Path:
    return place if place.is_dir() else place.parent


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(
            "label-malformed", f"'{text}' is not KEY=VALUE", hint="write, for example, --label team=databases"
        )
    return key, value


def _changed(catalogue: tuple[Path, ...], revision: str) -> tuple[Path, ...]:
    """List the files that differ from a git revision, also untracked ones."""
    folder = _folder(catalogue[0])
    if revision.startswith("-"):
        raise UsageError("revision-unknown", f"'{revision}' is not a revision", hint="give a commit, branch or tag")

    def git(*words: str) -> list[str]:
        done = processes.run(["git", "-C", folder, *words], timeout=GIT_TIMEOUT, check=False)
        if done.status != 0 and words[0] == "rev-parse":
            raise UsageError(
                "revision-unknown",
                f"--changed-since needs a git repository: {done.stderr.decode(errors='replace').strip()}",
                place=str(folder),
                hint="give recipes in a clone that git can read, or leave the option out to plan all",
            )
        if done.status != 0:
            raise UsageError(
                "revision-unknown",
                f"git diff against '{revision}' failed: {done.stderr.decode(errors='replace').strip()}",
                place=str(folder),
                hint="choose a revision that this clone has; shallow clones lack most of them",
            )
        return [name for name in done.stdout.decode(errors="surrogateescape").split("\0") if name]

    top = Path(git("rev-parse", "--show-toplevel")[0].rstrip("\n"))
    new = git("ls-files", "-z", "--others", "--exclude-standard", "--full-name")
    names = [*git("diff", "--name-only", "-z", revision, "--"), *new]
    return tuple(Path(os.path.normpath(top / name)) for name in names)
