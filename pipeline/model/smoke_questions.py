"""Expected questions of a smoke plan to one instance, in order, split at restarts.

The smoke test asks them, and the judgement of a report expects answers to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import Effect
from pipeline.model.checks import CHECK_KINDS, CheckKind, declaration
from pipeline.model.checks.restart_check import DECLARATION as RESTART
from pipeline.model.checks.restart_check import Restart
from pipeline.model.image import ImageConfig
from pipeline.model.smoke import Check, SmokePlan, Variant

UPGRADING = Check("becomes the new image", CheckKind(RESTART.name), 30_000, subject=Restart.SAME_DATA)
"""The action on the old image when no check restarts it."""

MOUNTS_QUESTION = "nothing but volumes and scratch space can be written"
"""The name of the check of the mounts that the read-only variant adds."""


@dataclass(frozen=True, slots=True)
class CheckPhase:
    """One start: the check that restarts (None: the first start), and what is asked then."""

    restart: Check | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """The question that one recorded result must be the answer to.

    `check` None: the check of the mounts. `config` is of the image that was asked; `ready` is the readiness check that
    is repeated after a restart.
    """

    name: str
    check: Check | None
    config: ImageConfig
    ready: Check | None = None


def check_phases(checks: Sequence[Check], *, upgrade: bool) -> tuple[CheckPhase, ...]:
    """Return the checks, cut where one restarts the instance.

    An upgrade has a restart in any case: before all.
    """
    if upgrade and not any(map(_restarts, checks)):
        return (CheckPhase(None, ()), CheckPhase(UPGRADING, tuple(checks)))
    return tuple(_cut(checks))


def _restarts(check: Check) -> bool:
    return declaration(check.kind).effect is Effect.RESTARTS


def _cut(checks: Sequence[Check]) -> Iterator[CheckPhase]:
    restart: Check | None = None
    asked: list[Check] = []
    for check in checks:
        if _restarts(check):
            yield CheckPhase(restart, tuple(asked))
            restart, asked = check, []
        else:
            asked.append(check)
    yield CheckPhase(restart, tuple(asked))


def expected_questions(
    plan: SmokePlan, config: ImageConfig, *, older: ImageConfig | None = None, variant: Variant | None = None
) -> tuple[Question, ...]:
    """Return all questions to one instance, in order.

    `older` is what an instance that is upgraded is before its first restart.
    """
    found: list[Question] = []
    for number, stage in enumerate(check_phases(plan.checks, upgrade=older is not None)):
        current = older if older is not None and number == 0 else config
        if stage.restart is not None:
            found.append(Question(stage.restart.name, stage.restart, current, plan.ready))
        elif plan.ready is not None:
            found.append(Question(plan.ready.name, plan.ready, current))
        if variant is Variant.READ_ONLY and stage.restart is None:
            found.append(Question(MOUNTS_QUESTION, None, current))
        found += [Question(check.name, check, current) for check in stage.checks]
    return tuple(found)


LATENCY_KINDS = tuple(
    CheckKind(kind.name) for kind in sorted(CHECK_KINDS, key=lambda kind: kind.latency_rank) if kind.latency_rank
)
"""Kinds of checks by which latency can be measured, the best first."""


def neighbour_check(plan: SmokePlan) -> Check | None:
    """Return the check by which neighbours are measured.

    The first by HTTP, else the first to a port or socket, else `ready` if it is one of these.
    """
    known = [check for kind in LATENCY_KINDS for check in plan.checks if check.kind is kind]
    if not known and plan.ready is not None and plan.ready.kind in LATENCY_KINDS:
        known = [plan.ready]
    return known[0] if known else None
