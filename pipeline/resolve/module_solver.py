"""Choose the builds of modules that are on, as dnf does: with libsolv.

As libdnf's ModulePackageContainer::moduleSolve, a module's stream is in the place of a package: streams that the
recipe names have to be on, defaults are if their requirements can be met, each in the order of names; streams of one
module exclude each other. Among several streams or contexts that fit a requirement libsolv takes the first by name.
Where this would be guessed for a stream that the recipe names, it is refused: the recipe can tell. Where defaults
contradict one another, or several streams fit in a chain of requirements, dnf may take another than this does: that
depends on the order of libsolv's rules. No text of the metadata reaches libsolv, numbers stand for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

import solv

from pipeline.errors import ResolutionError
from pipeline.lazy_dataclasses import dataclass

CONTEXTS_LIMIT = 1000
"""Streams of one module, counted by context: each excludes each other, so libsolv's work grows with their square."""

_HINT = "list the streams under 'modules': [name:stream]"


@dataclass(frozen=True, slots=True)
class ModuleBuild:
    """One build of a module's stream.

    It has requirements (module → possible streams, `-STREAM`: any but this one, none: any), the NEVRAs of its packages,
    and the names of those that are no longer modular (`demodularized`), which hide nothing. Builds of a stream that
    have the same `context` are on together.
    """

    module: str
    stream: str
    version: int
    context: str
    requires: Mapping[str, tuple[str, ...]]
    packages: frozenset[str]
    demodularized: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """`module:stream`."""
        return f"{self.module}:{self.stream}"


def module_refused(message: str, place: str, hint: str = _HINT) -> ResolutionError:
    """Return the error `module-refused`."""
    return ResolutionError("module-refused", message, place=place, hint=hint)


def enabled_builds(
    builds: Iterable[ModuleBuild], named: Mapping[str, str], defaults: Mapping[str, str], place: str
) -> dict[str, ModuleBuild]:
    """Map each module that is on to the newest build of its stream and context.

    `named`: streams by module that have to be on, and exist. `defaults`: those that are if possible. Raises
    ResolutionError `module-refused`, at `place`.
    """
    newest: dict[tuple[str, str, str], ModuleBuild] = {}
    for one in builds:
        key = (one.module, one.stream, one.context)
        if key not in newest or newest[key].version <= one.version:
            newest[key] = one
    candidates = [newest[key] for key in sorted(newest, key=":".join)]
    of_module: dict[str, list[ModuleBuild]] = {}
    for one in candidates:
        of_module.setdefault(one.module, []).append(one)
    for module, all_of_it in of_module.items():
        if len(all_of_it) > CONTEXTS_LIMIT:
            raise module_refused(f"module '{module}' has more than {CONTEXTS_LIMIT} streams", module)
    wanted = {**defaults, **named}
    chosen = _solve(candidates, of_module, wanted, named)
    if chosen is None:
        raise _contradiction(of_module, named, place)
    active = {one.module: one for one in chosen}
    _refuse_guesses(active, of_module, named, defaults, place)
    return active


def _solve(
    candidates: Sequence[ModuleBuild],
    of_module: Mapping[str, Sequence[ModuleBuild]],
    wanted: Mapping[str, str],
    named: Collection[str],
) -> list[ModuleBuild] | None:
    """Return the candidates that are on; None if those that have to be cannot be."""
    pool = solv.Pool()
    pool.setdisttype(solv.Pool.DISTTYPE_RPM)
    repo = pool.add_repo("modules")
    known: dict[object, solv.Dep] = {}

    def dependency(key: object) -> solv.Dep:
        return known.setdefault(key, pool.Dep(f"d{len(known)}"))

    solvables = {}
    builds = {}
    for number, one in enumerate(candidates):
        solvable = repo.add_solvable()
        solvable.name, solvable.evr, solvable.arch = f"b{number}", "0", "noarch"
        module = dependency(one.module)
        solvable.add_deparray(solv.SOLVABLE_PROVIDES, module)
        solvable.add_deparray(solv.SOLVABLE_PROVIDES, dependency((one.module, one.stream)))
        solvable.add_deparray(solv.SOLVABLE_CONFLICTS, module)
        solvables[one.module, one.stream, one.context] = solvable
        builds[solvable.id] = one
    required: set[object] = set()
    for one in candidates:
        solvable = solvables[one.module, one.stream, one.context]
        for other, streams in one.requires.items():
            fitting = frozenset(stream for stream in streams if not stream.startswith("-"))
            for stream in streams:
                if stream.startswith("-"):
                    solvable.add_deparray(solv.SOLVABLE_CONFLICTS, dependency((other, stream[1:])))
            # A dependency of its own, and no long one with `or`: each `or` takes a part of libsolv's stack.
            key = (other, fitting) if fitting else other
            solvable.add_deparray(solv.SOLVABLE_REQUIRES, dependency(key))
            if fitting and key not in required:
                required.add(key)
                for provider in of_module.get(other, ()):
                    if provider.stream in fitting:
                        provides = solvables[provider.module, provider.stream, provider.context]
                        provides.add_deparray(solv.SOLVABLE_PROVIDES, dependency(key))
    pool.createwhatprovides()
    how = solv.Job.SOLVER_INSTALL | solv.Job.SOLVER_SOLVABLE_PROVIDES
    jobs = [
        pool.Job(how | (0 if module in named else solv.Job.SOLVER_WEAK), dependency((module, wanted[module])).id)
        for module in sorted(wanted)
    ]
    solver = pool.Solver()
    if solver.solve(jobs):
        return None
    return [builds[one.id] for one in solver.transaction().newsolvables()]


def _fitting(of_module: Mapping[str, Sequence[ModuleBuild]], module: str, streams: Sequence[str]) -> set[str]:
    """Return the existing streams of a module that fit a requirement."""
    positive = {one for one in streams if not one.startswith("-")}
    negative = {one[1:] for one in streams if one.startswith("-")}
    return {
        one.stream
        for one in of_module.get(module, ())
        if one.stream not in negative and (not positive or one.stream in positive)
    }


def _contradiction(
    of_module: Mapping[str, Sequence[ModuleBuild]], named: Mapping[str, str], place: str
) -> ResolutionError:
    """Return the error for named streams that cannot be on together."""
    for module, stream in sorted(named.items()):
        contexts = [one for one in of_module[module] if one.stream == stream]
        missing = [
            next((other for other, streams in one.requires.items() if not _fitting(of_module, other, streams)), None)
            for one in contexts
        ]
        if None not in missing:
            return module_refused(
                f"module '{module}:{stream}' requires a stream of '{missing[0]}', and none fits",
                place,
                "add the repository that has it, or list another stream under 'modules'",
            )
    listed = ", ".join(f"'{module}:{stream}'" for module, stream in sorted(named.items()))
    return module_refused(f"one of the modules {listed} requires streams that are not enabled", place)


def _refuse_guesses(
    active: Mapping[str, ModuleBuild],
    of_module: Mapping[str, Sequence[ModuleBuild]],
    named: Mapping[str, str],
    defaults: Mapping[str, str],
    place: str,
) -> None:
    """Refuse a stream that a named one requires if others fit as well, or the default does not."""
    fitting: dict[str, set[str]] = {}
    asked_by: dict[str, ModuleBuild] = {}
    waiting = deque(sorted(named))
    while waiting:
        build = active[waiting.popleft()]
        for other, streams in build.requires.items():
            if other not in fitting and other not in named:
                waiting.append(other)
            asked_by.setdefault(other, build)
            found = _fitting(of_module, other, streams)
            fitting[other] = fitting.get(other, found) & found
    for other, possible in sorted(fitting.items()):
        build = asked_by[other]
        if other in named:
            continue
        if other in defaults and active[other].stream != defaults[other]:
            raise module_refused(f"module '{build.name}' requires streams that are not enabled", place)
        if other not in defaults and len(possible) > 1:
            listed = ", ".join(sorted(possible))
            raise module_refused(
                f"module '{build.name}' requires a stream of '{other}', and several fit: {listed}", place
            )
