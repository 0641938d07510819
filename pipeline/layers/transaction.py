"""Which scripts a first installation runs, in which order, with which arguments and input.

Follows rpm 4.18 (lib/psm.c, lib/rpmtriggers.c, lib/transaction.c) for a transaction into an empty root:

    every %pretrans
    per package: %triggerprein, %pre, file triggers of priority ≥ 10000, %post, %triggerin,
                 file triggers of lower priority
    every %posttrans
    every %transfiletriggerin

with one difference that is documented: the files of *all* packages exist before the first script runs.
Which triggers a package sets off is still decided by what rpm would have installed up to then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.model.header import Dependency, Moment, PackageHeader, Scriptlet, Trigger, TriggerKind

_EARLY_PRIORITY = 10_000
"""File triggers of this priority or a higher one run before %post (rpm's TRIGGER_PRIORITY_BOUND)."""

_LESS, _GREATER, _EQUAL = 2, 4, 8


@dataclass(frozen=True, slots=True)
class Step:
    """One script to run. `label` is for people (`%post of nginx-1.26.3-3.x86_64`); `arguments` follow the
    script's name; `input` is fed to its standard input."""

    label: str
    package: str
    interpreter: tuple[str, ...]
    body: str
    arguments: tuple[str, ...]
    input: bytes = b""
    expand: bool = False


type_compare = Callable[[str, str], int]


def plan(
    headers: Sequence[PackageHeader],
    *,
    present: Mapping[str, Sequence[str]],
    compare: type_compare,
) -> tuple[Step, ...]:
    """The steps of installing `headers`, given in the order of the transaction, into an empty root.

    `present` maps each NEVRA to the absolute paths that file triggers see: rpm's own file list of the package.
    `compare` orders two EVRs as rpm does.
    """
    return tuple(_steps(headers, present, compare))


def _steps(
    headers: Sequence[PackageHeader], present: Mapping[str, Sequence[str]], compare: type_compare
) -> Iterator[Step]:
    for header in headers:
        yield from _scriptlets(header, Moment.PRETRANS)
    for index, header in enumerate(headers):
        installed = headers[: index + 1]
        before = headers[:index]
        yield from _package_triggers(header, before, TriggerKind.PREIN, compare)
        yield from _scriptlets(header, Moment.PRE)
        yield from _file_triggers(header, installed, present, early=True)
        yield from _scriptlets(header, Moment.POST)
        yield from _package_triggers(header, installed, TriggerKind.IN, compare)
        yield from _file_triggers(header, installed, present, early=False)
    for header in headers:
        yield from _scriptlets(header, Moment.POSTTRANS)
    for header in headers:
        for trigger in _by_priority(header, TriggerKind.TRANSACTION_FILE_IN):
            yield from _file_step(header, trigger, headers, present)


def _scriptlets(header: PackageHeader, moment: Moment) -> Iterator[Step]:
    for scriptlet in header.scriptlets:
        if scriptlet.moment is moment:
            yield _step(header, f"%{moment}", scriptlet, ("1",))


def _step(
    header: PackageHeader, what: str, script: Scriptlet | Trigger, arguments: tuple[str, ...], fed: bytes = b""
) -> Step:
    return Step(
        label=f"{what} of {header.nevra}",
        package=str(header.nevra),
        interpreter=script.interpreter,
        body=script.body,
        arguments=arguments,
        input=fed,
        expand=isinstance(script, Scriptlet) and script.expand,
    )


def _package_triggers(
    header: PackageHeader, installed: Sequence[PackageHeader], kind: TriggerKind, compare: type_compare
) -> Iterator[Step]:
    """Triggers of others that `header` sets off, then its own that the installed set off."""
    for other in sorted(installed, key=lambda other: str(other.nevra)):
        for trigger in other.triggers:
            if trigger.kind is kind and any(_matches(condition, header, compare) for condition in trigger.on):
                yield _step(other, f"%{kind} on {header.nevra.name}", trigger, ("1", "1"))
    for trigger in header.triggers:
        if trigger.kind is not kind:
            continue
        for other in installed:
            if other is not header and any(_matches(condition, other, compare) for condition in trigger.on):
                yield _step(header, f"%{kind} on {other.nevra.name}", trigger, ("1", "1"))


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
) -> Iterator[Step]:
    """What the files of `header` set off in the installed packages, then its own triggers over all files."""
    found = [
        (-trigger.priority, index, position, other, trigger)
        for index, other in enumerate(installed)
        for position, trigger in enumerate(other.triggers)
        if trigger.kind is TriggerKind.FILE_IN and (trigger.priority >= _EARLY_PRIORITY) is early
    ]
    for _, _, _, other, trigger in sorted(found, key=lambda row: row[:3]):
        yield from _file_step(other, trigger, [header], present)
    for trigger in _by_priority(header, TriggerKind.FILE_IN):
        if (trigger.priority >= _EARLY_PRIORITY) is early:
            yield from _file_step(header, trigger, installed, present)


def _by_priority(header: PackageHeader, kind: TriggerKind) -> list[Trigger]:
    return sorted((t for t in header.triggers if t.kind is kind), key=lambda trigger: -trigger.priority)


def _file_step(
    owner: PackageHeader,
    trigger: Trigger,
    matched: Sequence[PackageHeader],
    present: Mapping[str, Sequence[str]],
) -> Iterator[Step]:
    """One step if any file matches. Input: per prefix, per package, its files below it (rpm's order)."""
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
