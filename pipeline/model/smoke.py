"""Data classes for the plan of a smoke test: checks, limits, instances, variants.

The results are in `pipeline.model.report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from enum import StrEnum

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import Expectation, Subject
from pipeline.model.checks import CheckKind
from pipeline.model.limits import AnyLimit, Limits
from pipeline.model.limits.cpus import LIMIT as CPUS
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.limits.pids import LIMIT as PIDS
from pipeline.model.value_rules import Rules


@dataclass(frozen=True, slots=True)
class RenderedText:
    """A text of a check that a template made.

    `key` is its path in the check: `expect.stdout[0].is`.
    """

    key: str
    template: str
    rendered: str

    @property
    def sentence(self) -> str:
        """In one line: `expect.stdout[0].is: '{{ values.port }}' rendered to '3306'`."""
        return f"{self.key}: {_quoted(self.template)} rendered to {_quoted(self.rendered)}"


_TEXT_SHOWN = 120
"""Characters of a template, and of what it rendered to, that a message shows."""


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text[:_TEXT_SHOWN]}…'" if len(text) > _TEXT_SHOWN else f"'{text}'"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. Times are milliseconds.

    The question is in `subject`, but for some kinds: `command` is run in the instance (with `stdin`, as `user`) until
    it meets `expect` or `within` passes; `port` or the unix socket `socket` is connected to, `send` is sent if given,
    and the answer compared with `expect.stdout`; the instance's output is compared with `log`; a stop sends `signal`
    ("": the image's) and expects the end within `within` with `expect.exit_code`. `place` is its `file:line`, and
    `from_templates` what its templates rendered to: both are for messages, and no part of the plan's digest or JSON.
    """

    name: str
    kind: CheckKind
    within: int
    expect: Expectation = Expectation()
    command: tuple[str, ...] = ()
    stdin: str = ""
    user: str = ""
    port: int = 0
    socket: str = ""
    send: str = ""
    log: Rules = ()
    signal: str = ""
    subject: Subject | None = None
    place: str = field(default="", compare=False)
    from_templates: tuple[RenderedText, ...] = field(default=(), compare=False)

    def about(self, subject: Subject) -> Check:
        """Return a copy of the check with this subject."""
        return replace(self, subject=subject)


class Variant(StrEnum):
    """Another way of launching the image, in one more instance that is asked the same."""

    ARBITRARY_UID = "arbitrary-uid"
    READ_ONLY = "read-only"


class Misbehaviour(StrEnum):
    """Ways to misbehave for a neighbour, with all that its limits leave it."""

    SPIN = "spin"
    ALLOCATE = "allocate"
    FORK = "fork"
    FLOOD = "flood"


CONTAINED_BY: Mapping[Misbehaviour, AnyLimit] = {
    Misbehaviour.SPIN: CPUS,
    Misbehaviour.ALLOCATE: MEMORY,
    Misbehaviour.FORK: PIDS,
}
"""Limits without which a misbehaviour would disturb the whole machine, instead of the neighbours."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """`count` instances at the same time, of which one misbehaves in each way in turn.

    The others must still answer within `factor` times their quiet latency. Latencies below `floor` (microseconds) count
    as `floor`. `lasting` is milliseconds of each measurement.
    """

    count: int = 20
    misbehave: tuple[Misbehaviour, ...] = tuple(Misbehaviour)
    factor: float = 10.0
    floor: int = 5_000
    lasting: int = 2_000


@dataclass(frozen=True, slots=True)
class SmokePlan:
    """The plan of a smoke test of one image.

    `ready` is asked first of every instance, then `checks` in order.

    `variants` are instances more. `upgrade_from` is an older image (a layout, relative to the recipe; "": none):
    one more instance starts as that one, and is the new one, on its data, from the first restart on.
    """

    ready: Check | None = None
    checks: tuple[Check, ...] = ()
    limits: Limits = Limits()
    instances: int = 1
    variants: tuple[Variant, ...] = ()
    upgrade_from: str = ""
    neighbours: Neighbours | None = None

    def check_named(self, name: str) -> Check | None:
        """Return the check with a name, `ready` included; None if there is none."""
        return next((check for check in (self.ready, *self.checks) if check is not None and check.name == name), None)
