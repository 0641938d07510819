"""Build the last layer in the sandbox: accounts, scriptlets, recipe files, RPM database.

The steps are accounts, scriptlets and triggers in RPM's order, the recipe's files, removals, the RPM database. The
overlay's upper directory, cleaned of everything that does not depend on the inputs alone, is packed as the last layer.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.compression import Compression, layer_versions
from pipeline.digest import Digest, identity
from pipeline.errors import BuildError
from pipeline.layers.built_layer import BuiltLayer
from pipeline.layers.change_tracker import ChangeTracker
from pipeline.layers.damaged_lowers import damages_identity, lower_damages, remember_when_packed
from pipeline.layers.installed_packages import final_file_states, matching_paths
from pipeline.layers.layer_formats import STATE_LAYER_FORMAT as FORMAT
from pipeline.layers.other_databases import remove_other_databases
from pipeline.layers.placed_files import need_directory, place_files, remove_paths
from pipeline.layers.recipe_files import ImageFile
from pipeline.layers.scriptlet_failures import judge_failure
from pipeline.layers.scripts import SCRIPT_MOUNT, run_script
from pipeline.layers.state_accounts import (
    check_accounts,
    other_numbers,
    scripted_accounts,
    still_expected,
    write_accounts,
)
from pipeline.layers.state_plan import StatePlan
from pipeline.layers.state_preparation import StatePreparation
from pipeline.layers.state_session import StateSession, open_state_session
from pipeline.layers.transaction import ScriptStep
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.accounts import AccountTable, ScriptAccount
from pipeline.model.change import Change
from pipeline.model.header import PackageHeader
from pipeline.model.image import Layer
from pipeline.model.json_form import from_json, to_json
from pipeline.model.parent_image import InstalledPackage
from pipeline.model.rpm_database import DATABASE_LEFTOVERS, RpmDatabase
from pipeline.model.scriptlets import ScriptletFailure, ScriptletRules
from pipeline.model.tree import Tree
from pipeline.packages.lua import runtime_digest
from pipeline.progress import Progress, task
from pipeline.sandbox import CommandSession, require_tracing
from pipeline.store import Store

UNREPRODUCIBLE_PATHS = (
    "etc/passwd-",  # backups by shadow-utils, whose content depends on the order of scriptlets
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/.pwd.lock",
    "etc/*.lock",
    "var/cache/ldconfig/aux-cache",  # holds inode numbers and times of the machine that made it
    "var/tmp/*",
    "tmp/*",
    "run/*",
    "root/.bash_history",
    "root/.rpmdb",
    "dev/*",
    "proc/*",
    "sys/*",
)
"""Paths that scriptlets leave and that do not depend on the inputs alone: never part of an image."""

LOG_FOLDER = "var/log"


@dataclass(frozen=True, slots=True)
class StateInputs:
    """All inputs of the state layer.

    `layers` are those of the parent image and the package layers, lowest first, `tree` is their tree together. Blobs of
    the package layers may still be packed.
    `headers` are in the order of the transaction, and `below` are the parent's packages; by NEVRA, in the header's
    order of files, `states` holds rpm's file states of both; so does `paths` the canonical paths, where `remove` has
    patterns. `install_color` is rpm's transaction colour. `build_time` is seconds since the epoch. `scripted` are the
    accounts of the table that scriptlets make themselves. `architecture` (OCI's name) is the image's: scriptlets'
    programs must be for it. `remove_places` are the `file:line` of what is in `remove`.
    """

    layers: tuple[Layer | BuiltLayer, ...]
    headers: tuple[PackageHeader, ...]
    states: Mapping[str, tuple[int, ...]]
    paths: Mapping[str, tuple[str, ...]]
    tree: Tree
    accounts: AccountTable
    files: tuple[ImageFile, ...]
    remove: tuple[str, ...]
    rpm_database: RpmDatabase
    install_color: int
    build_time: int
    architecture: str = ""
    below: tuple[InstalledPackage, ...] = ()
    scripted: tuple[ScriptAccount, ...] = ()
    remove_places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StateLayer:
    """The last layer of an image, and the states of its packages' files.

    `changes` are its changes to package content; `failures` are the scriptlets that failed; `states` are rpm's states
    of all packages' files, as in its database.
    """

    layer: Layer
    changes: tuple[Change, ...]
    failures: tuple[ScriptletFailure, ...]
    states: Mapping[str, tuple[int, ...]]
    reused: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """A state layer, its changes and its failed scriptlets, as the store remembers them."""

    layer: Layer
    changes: tuple[Change, ...]
    failures: tuple[ScriptletFailure, ...]


def build_state_layer(
    inputs: StateInputs,
    rules: ScriptletRules,
    plan: StatePlan,
    *,
    prepared: StatePreparation,
    store: Store,
    compression: Compression,
    progress: Progress,
) -> StateLayer:
    """Make the state layer, or recall it when nothing that it depends on changed.

    `plan` is of the inputs' packages. A layer with a failure that the rules do not tolerate is made again: the failure
    may have passed. One with a script that a limit of the sandbox ended is not remembered, nor one on a tree that was
    damaged: it is remembered when the packing of `inputs.layers` has ended, and counts no more once damage is found.

    `rules` are the recipe's for scripts that fail; the layer is the same whatever they say, if it is made. `prepared`
    is of the same packages, and begun only when the layer is made.

    Raises BuildError: `scriptlet-failed`, `scriptlet-timed-out`, `command-not-started`, `scriptlet-renumbers`,
    and as `place_files` and `remove_paths`; EnvironmentLacking when the machine cannot run the sandbox, or trace
    (`tracing-refused`).
    """
    states = final_file_states(inputs.states, inputs.paths, inputs.remove, inputs.tree)
    damages = lower_damages(inputs.layers, store)
    name = _identity(inputs, plan, compression, damages)
    with store.locked(f"state-{name.hex}"):
        known = store.recall_as(name, lambda value: from_json(_Known, value))
        if known is not None and _tolerable(known.failures, rules) and store.sound(known.layer.blob.digest):
            return StateLayer(known.layer, known.changes, known.failures, states, reused=True)

        def look_again() -> None:
            # A damage that is found before a tree is mounted, as after a power cut, has it unpacked again.
            nonlocal damages, name
            before, damages = damages, lower_damages(inputs.layers, store)
            if damages != before:
                name = _identity(inputs, plan, compression, damages)

        made = _make(
            inputs,
            rules,
            plan,
            prepared=prepared,
            store=store,
            compression=compression,
            progress=progress,
            mounted=look_again,
        )

        def remember() -> None:
            # A limit that ended a script may have been met on this machine, at this load, alone.
            if not any(failure.bound for failure in made.failures):
                store.remember(name, to_json(made))

        remember_when_packed(inputs.layers, damages, store, remember)
    return StateLayer(made.layer, made.changes, made.failures, states, reused=False)


def _tolerable(failures: Sequence[ScriptletFailure], rules: ScriptletRules) -> bool:
    """Return whether the rules tolerate all failures of a remembered layer."""
    try:
        for failure in failures:
            judge_failure(failure, rules)
    except BuildError:
        return False
    return not any(failure.bound for failure in failures)


def _identity(inputs: StateInputs, plan: StatePlan, compression: Compression, damages: tuple[int, ...] = ()) -> Digest:
    return identity(
        "state",
        FORMAT,
        lowers=[layer.diff_id for layer in inputs.layers],
        steps=[
            [s.label, list(s.interpreter), s.body, list(s.arguments), str(Digest.of(s.input)), s.expand]
            for s in plan.steps
        ],
        lua=runtime_digest(plan.lua) if plan.lua else None,
        accounts=repr(inputs.accounts),
        files=[
            [f.path, str(f.kind), str(Digest.of(f.content or b"")), f.link, f.mode, f.owner, f.group]
            + ([str(f.archive.digest), f.archive.strip] if f.archive else [])
            for f in inputs.files
        ],
        remove=inputs.remove,
        database=[*inputs.rpm_database.inputs, inputs.install_color],
        packages=[[str(h.nevra), str(h.checksum), list(inputs.states[str(h.nevra)])] for h in inputs.headers],
        below=[
            [str(one.header.checksum), list(inputs.states[str(one.header.nevra)]), one.install_time]
            for one in inputs.below
        ],
        build_time=inputs.build_time,
        compression=compression,
        versions=layer_versions(),
        **_scripted_identity(inputs),
        **_removal_identity(inputs),
        **damages_identity(damages),
    )


def _scripted_identity(inputs: StateInputs) -> dict[str, list[list[str]]]:
    """Return the accounts that scriptlets make, as a part of the layer's identity."""
    found = [
        [one.kind, one.name, one.package, one.phase.value] for one in scripted_accounts(inputs.scripted, inputs.tree)
    ]
    return {"scripted": found} if found else {}


def _removal_identity(inputs: StateInputs) -> dict[str, list[str]]:
    """Return the removals that lead over links.

    The RPM database has their files as not installed.
    """
    found = [
        pattern
        for pattern in inputs.remove
        if (matching := matching_paths(pattern, inputs.tree)) and pattern.strip("/") not in matching
    ]
    return {"over_links": found} if found else {}


def _make(
    inputs: StateInputs,
    rules: ScriptletRules,
    plan: StatePlan,
    *,
    prepared: StatePreparation,
    store: Store,
    compression: Compression,
    progress: Progress,
    mounted: Callable[[], None],
) -> _Known:
    failures: list[ScriptletFailure] = []
    with (
        store.temporary("state") as folder,
        task(progress, "state", "scriptlets", total=len(plan.steps)) as running,
    ):
        container = prepared.session()
        if container is None and plan.steps:
            require_tracing(folder)
        opened = open_state_session(
            inputs.layers,
            inputs.tree,
            folder,
            prepared=container,
            architecture=inputs.architecture,
            store=store,
            progress=progress,
        )
        with opened as state:
            mounted()
            session = state.session
            bound = session.share(SCRIPT_MOUNT)
            if plan.lua is not None:
                session.bind(plan.lua, f"{SCRIPT_MOUNT}-lua")
            if plan.steps:
                session.begin_commands(bound, SCRIPT_MOUNT)
            watch = ChangeTracker(state)
            others = other_numbers(session, inputs.accounts)
            for failure in _run_scripts(inputs, plan.steps, session, bound=bound, watch=watch):
                if failure is not None:
                    judge_failure(failure, rules)
                    failures.append(failure)
                running.advance(1)
            session.end_commands()
            running.note(f"{len(plan.steps)} scripts")
            table = check_accounts(session, inputs.accounts, others)
            _clean(state, inputs)
            watch.forget()
            made = place_files(inputs.files, session.files, table, inputs.build_time, store)
            watch.record_step("files of the recipe")
            asked = itertools.zip_longest(inputs.remove, inputs.remove_places)
            remove_paths(asked, made, session.files, inputs.tree)
            watch.record_step("remove in the recipe")
            _place_database(prepared.database(), inputs.rpm_database.folder.strip("/"), state, inputs.build_time)
            changes = watch.changes(inputs.tree)
            layer = state.pack(inputs.tree, build_time=inputs.build_time, store=store, compression=compression)
    return _Known(layer, changes, tuple(failures))


def _run_scripts(
    inputs: StateInputs, steps: Sequence[ScriptStep], session: CommandSession, *, bound: Path, watch: ChangeTracker
) -> Iterator[ScriptletFailure | None]:
    """Run all scripts in order, the accounts written before; yield how each failed, or None."""
    expected = scripted_accounts(inputs.scripted, inputs.tree)
    write_accounts(session, inputs.accounts.without(expected), inputs.build_time)
    watch.record_step("the account table")
    for step in steps:
        failure = run_script(step, session, bound, inputs.build_time)
        left = still_expected(expected, step)
        if left != expected:
            write_accounts(session, inputs.accounts.without(left), inputs.build_time)
        expected = left
        watch.record_step(step.label)
        yield failure
    if expected:  # Those of scriptlets that did not run.
        write_accounts(session, inputs.accounts, inputs.build_time)
        watch.record_step("the account table")


# --- clearing, database ------------------------------------------------------------------------------


def _clean(state: StateSession, inputs: StateInputs) -> None:
    """Remove what does not depend on the inputs alone, and empty the logs that scripts wrote.

    Logs' content is of this build alone, but packages need the files, with their owners.
    """
    for pattern in UNREPRODUCIBLE_PATHS:
        state.discard(*posixpath.split(pattern))

    def unowned(path: str) -> bool:
        owned = inputs.tree.get(path)
        return owned is None or not owned.owner

    state.empty_files(LOG_FOLDER, unowned)


def _place_database(made: Path, target: str, state: StateSession, build_time: int) -> None:
    """Move rpm's database to the platform's path for it.

    What scripts that called rpm left there is removed, and so is any other database.
    """
    session = state.session
    need_directory(session.files, target)
    placed = sorted(made.iterdir())
    remove_other_databases(session.files, target, [file.name for file in placed])
    for pattern in DATABASE_LEFTOVERS:
        state.discard(target, pattern)
    for file in placed:
        session.files.write_file(f"{target}/{file.name}", file.read_bytes(), mode=0o644, mtime=build_time)
