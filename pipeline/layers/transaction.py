"""Plan the scriptlets and triggers of an installation in rpm's order, with their input.

Follows rpm 4.18 (lib/psm.c, lib/rpmtriggers.c, lib/transaction.c) for a transaction that installs packages into an
empty root, or beside those of a parent image:

    every %pretrans
    per package: %triggerprein, %pre, file triggers of priority ≥ 10000, %post, %triggerin,
                 file triggers of lower priority
    every %posttrans
    every %transfiletriggerin: those of the parent image's packages that the new files set off, then the new packages'

with one difference that is documented: the files of *all* packages exist before the first script runs.
Which triggers a package sets off is still decided by what rpm would have installed up to then. The parent's packages
run no scriptlet of their own again; their triggers run when a new package sets them off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.header import (
    Dependency,
    PackageHeader,
    Scriptlet,
    ScriptletPhase,
    Trigger,
    TriggerKind,
)

_EARLY_PRIORITY = 10_000
"""File triggers of this priority or a higher one run before %post (rpm's TRIGGER_PRIORITY_BOUND)."""

_LESS, _GREATER, _EQUAL = 2, 4, 8


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """One script to run.

    `label` is for people (`%post of nginx-1.26.3-3.x86_64`); `package` is a NEVRA, `name` the package's; `arguments`
    follow the script's name; `input` is fed to its standard input.
    """

    label: str
    kind: ScriptletPhase | TriggerKind
    package: str
    name: str
    interpreter: tuple[str, ...]
    body: str
    arguments: tuple[str, ...]
    input: bytes = b""
    expand: bool = False


type_compare = Callable[[str, str], int]


def plan_scripts(
    headers: Sequence[PackageHeader],
    *,
    present: Mapping[str, Sequence[str]],
    compare: type_compare,
    below: Sequence[PackageHeader] = (),
) -> tuple[ScriptStep, ...]:
    """Return the steps of installing `headers` beside the packages `below`.

    `headers` are given in the order of the transaction.

    `present` maps each NEVRA to the absolute paths that file triggers see: rpm's own file list of the package.
    `compare` orders two EVRs as rpm does.
    """
    return tuple(_Plan(tuple(headers), tuple(below), present, compare).steps())


@dataclass(frozen=True, slots=True)
class _Plan:
    """The inputs of `plan_scripts`, and the steps made from them."""

    headers: tuple[PackageHeader, ...]
    below: tuple[PackageHeader, ...]
    present: Mapping[str, Sequence[str]]
    compare: type_compare

    def steps(self) -> Iterator[ScriptStep]:
        """Yield all steps in order."""
        for header in self.headers:
            yield from self._scriptlets(header, ScriptletPhase.PRETRANS)
        for index, header in enumerate(self.headers):
            before = (*self.below, *self.headers[:index])
            installed = (*before, header)
            yield from self._package_triggers(header, before, TriggerKind.PREIN)
            yield from self._scriptlets(header, ScriptletPhase.PRE)
            yield from _file_triggers(header, installed, self.present, early=True)
            yield from self._scriptlets(header, ScriptletPhase.POST)
            yield from self._package_triggers(header, installed, TriggerKind.IN)
            yield from _file_triggers(header, installed, self.present, early=False)
        for header in self.headers:
            yield from self._scriptlets(header, ScriptletPhase.POSTTRANS)
        for owner, trigger in _ranked(self.below, TriggerKind.TRANSACTION_FILE_IN):
            yield from _file_step(owner, trigger, self.headers, self.present)
        for header in self.headers:
            for trigger in _by_priority(header, TriggerKind.TRANSACTION_FILE_IN):
                yield from _file_step(header, trigger, (*self.below, *self.headers), self.present)

    def _instances(self, header: PackageHeader) -> str:
        """Return the number of packages of this name, as passed to scriptlets.

        Counted are those of the parent image and one new one.
        """
        new = 0 if any(other is header for other in self.below) else 1
        return str(new + sum(other.nevra.name == header.nevra.name for other in self.below))

    def _scriptlets(self, header: PackageHeader, moment: ScriptletPhase) -> Iterator[ScriptStep]:
        for scriptlet in header.scriptlets:
            if scriptlet.moment is moment:
                yield _step(header, f"%{moment}", scriptlet, (self._instances(header),))

    def _package_triggers(
        self, header: PackageHeader, installed: Sequence[PackageHeader], kind: TriggerKind
    ) -> Iterator[ScriptStep]:
        """Yield others' triggers that `header` sets off, then its own that installed ones set off."""
        for other in sorted(installed, key=lambda other: str(other.nevra)):
            for trigger in other.triggers:
                if trigger.kind is kind and any(_matches(on, header, self.compare) for on in trigger.on):
                    yield self._triggered(other, trigger, header)
        for trigger in header.triggers:
            if trigger.kind is not kind:
                continue
            for other in installed:
                if other is not header and any(_matches(on, other, self.compare) for on in trigger.on):
                    yield self._triggered(header, trigger, other)

    def _triggered(self, owner: PackageHeader, trigger: Trigger, by: PackageHeader) -> ScriptStep:
        counts = (self._instances(owner), self._instances(by))
        return _step(owner, f"%{trigger.kind} on {by.nevra.name}", trigger, counts)


def _step(
    header: PackageHeader, what: str, script: Scriptlet | Trigger, arguments: tuple[str, ...], fed: bytes = b""
) -> ScriptStep:
    return ScriptStep(
        label=f"{what} of {header.nevra}",
        kind=script.moment if isinstance(script, Scriptlet) else script.kind,
        package=str(header.nevra),
        name=header.nevra.name,
        interpreter=script.interpreter,
        body=script.body,
        arguments=arguments,
        input=fed,
        expand=isinstance(script, Scriptlet) and script.expand,
    )


def _matches(condition: Dependency, header: PackageHeader, compare: type_compare) -> bool:
    if condition.name != header.nevra.name:
        return False
    wanted = condition.flags & (_LESS | _GREATER | _EQUAL)
    if not wanted or not condition.evr:
        return True
    order = compare(f"{header.nevra.epoch}:{header.nevra.version}-{header.nevra.release}", condition.evr)
    return bool(wanted & (_LESS if order < 0 else _GREATER if order > 0 else _EQUAL))


def _file_triggers(
    header: PackageHeader,
    installed: Sequence[PackageHeader],
    present: Mapping[str, Sequence[str]],
    *,
    early: bool,
) -> Iterator[ScriptStep]:
    """Yield the steps of the file triggers around `header`.

    First come those that its files set off in the installed packages, itself among them, then its own triggers over the
    files of the others.
    """
    for other, trigger in _ranked(installed, TriggerKind.FILE_IN):
        if (trigger.priority >= _EARLY_PRIORITY) is early:
            yield from _file_step(other, trigger, [header], present)
    others = [other for other in installed if other is not header]
    for trigger in _by_priority(header, TriggerKind.FILE_IN):
        if (trigger.priority >= _EARLY_PRIORITY) is early:
            yield from _file_step(header, trigger, others, present)


def _ranked(installed: Sequence[PackageHeader], kind: TriggerKind) -> list[tuple[PackageHeader, Trigger]]:
    """Sort file triggers of packages by priority, then by order of installation."""
    found = [(owner, trigger) for owner in installed for trigger in owner.triggers if trigger.kind is kind]
    return sorted(found, key=lambda one: -one[1].priority)


def _by_priority(header: PackageHeader, kind: TriggerKind) -> list[Trigger]:
    return sorted((t for t in header.triggers if t.kind is kind), key=lambda trigger: -trigger.priority)


def _file_step(
    owner: PackageHeader,
    trigger: Trigger,
    matched: Sequence[PackageHeader],
    present: Mapping[str, Sequence[str]],
) -> Iterator[ScriptStep]:
    """Yield one step if any file matches the trigger.

    Its input is, per prefix, per package, the package's files below the prefix (rpm's order).
    """
    lines = [
        path
        for prefix in trigger.on
        for header in matched
        for path in sorted(present.get(str(header.nevra), ()))
        if path.startswith(prefix.name)
    ]
    if lines:
        fed = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
        yield _step(owner, f"%{trigger.kind}", trigger, ("0", "0"), fed)
