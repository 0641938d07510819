"""One command, and what each fault does to it."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator

import checks
from crash import Loss, crash
from plan import Call, Fault, Plan
from results import Row
from runs import Injected, Ran, reap, relbuild
from scenarios import Place, Scenario, again, command
from states import Known, state_of

from tests.support.leftover_check import (
    Snapshot,
    left_since,
    marks_of,
    snapshot,
)

_ENDING, _LOOK = 20.0, 0.02
"""Seconds that what a killed relbuild has started gets to end, and between two looks at it."""

_KEPT = 400
"""Characters of what was printed that are kept of a fault that did harm."""


class Subject:
    """A command that faults happen to."""

    def __init__(self, place: Place, scenario: Scenario, plan: Plan) -> None:
        self.place, self.scenario, self.plan = place, scenario, plan
        self.expected: object = None
        self._calls = 0
        self._known = Known()
        self._opened: set[str] = set()
        self._moved: set[str] = set()
        self._made: list[Call] = []
        self._round = 0

    def undisturbed(self) -> list[Call]:
        """The calls of a run without a fault, and what must come of each other one."""
        ran = self._run(None, 0, forever=False)
        if ran.status != 0:
            sys.exit(f"{self.scenario.name} ended with {ran.status} without a fault:\n{ran.err}")
        calls = self._made
        self._calls = len(calls)
        self._again()
        self.expected = self.scenario.came_of(self.place)
        return calls

    def short(self, path: str) -> str:
        """A path in the folder of work."""
        return path.replace(f"{self.place.work}/", "")

    def try_fault(self, fault: Fault, number: int, row: Row, *, forever: bool, seed: int) -> None:
        """Let it happen, and look."""
        work = self.place.work
        before = snapshot(work / "store", work / "output", work / "mirror")
        ran = self._run(fault, number, forever=forever)
        problems = list(self._ended(ran, fault))
        problems += [f"left: {one}" for one in self._left(before)]
        if fault is Fault.CRASH:
            problems += self._crashed(number, ran, seed)
        state = state_of(work)
        new = self.scenario.sends or state not in self._known
        if new:
            problems += self._mended()
            problems += [f"left at the end: {one}" for one in self._left(before)]
            if not problems:
                self._known.add(state, self._opened, self._moved)
        reap()
        row.add(number, ran.status, reached=bool(ran.fired) or fault is Fault.CRASH, new=new, lost=bool(problems))
        if problems:
            print(f"BAD {self.scenario.name}, {fault} at {number} ({self._where(number)}), status {ran.status}")
            print(*(f"    {one[:_KEPT]}" for one in problems[:6]), sep="\n")
            print("    said:", ran.err[-_KEPT:].replace("\n", "\n    "), flush=True)

    def _left(self, before: Snapshot) -> Iterator[str]:
        """What is left of relbuild's; networks that have not its mark are of others who work on this machine."""
        marks = marks_of([self.place.work / "store"])
        deadline = time.monotonic() + _ENDING
        while True:
            left = [
                one
                for one in left_since(before)
                if not one.startswith(("network namespace", "link")) or any(mark in one for mark in marks)
            ]
            if not left or time.monotonic() > deadline:
                return iter(left)
            time.sleep(_LOOK)

    def _crashed(self, number: int, ran: Ran, seed: int) -> Iterator[str]:
        """Lose what was not synced. What had ended well must be there all the same."""
        loss = list(Loss)[(number + seed) % len(Loss)]
        before, made = self.place.template(self.scenario.finds), [call for call in self._made if call.number < number]
        crash(self.place.work, before, made, loss, random.Random(seed * 1_000_003 + number))
        if number > self._calls and ran.status == 0 and self.scenario.came_of(self.place) != self.expected:
            yield f"it had ended well, and what it did is lost ({loss})"

    def _where(self, number: int) -> str:
        call = next((one for one in self._made if one.number == number), None)
        return f"{call.name} {self.short(call.path)} {self.short(call.other)}".rstrip() if call else "the end"

    def _run(self, fault: Fault | None, number: int, *, forever: bool) -> Ran:
        self.place.restore(self.scenario.finds)
        self._round += 1
        count = self.place.work / "number"
        if count.exists():
            count.write_text(f"{os.getpid()}x{self._round}")
        words = command(self.scenario, self.place)
        injected = Injected(self.plan, fault, number, forever, self.scenario.sends)
        ran = relbuild(words, self.place.work, self.place.root, injected, at=self.place.now)
        self._made = list(self.plan.calls())
        return ran

    def _again(self) -> Ran:
        return self._traced(again(self.scenario, self.place))

    def _fsck(self) -> Ran:
        return self._traced(["store", "fsck", "--store", "store"])

    def _traced(self, words: list[str]) -> Ran:
        """A run without a fault, and which files it opened."""
        work = self.place.work
        ran = relbuild(words, work, self.place.root, Injected(self.plan), at=self.place.now + 60)
        opened, moved = ({self.short(path) for path in paths} for paths in self.plan.touched())
        self._opened |= opened
        self._moved |= moved
        return ran

    def _ended(self, ran: Ran, fault: Fault) -> Iterator[str]:
        """How it ended: killed, or with an error of its own."""
        if fault.ends:
            if ran.status != (-9 if ran.fired else 0):
                yield f"{'killed' if ran.fired else 'left alone'}, it ended with {ran.status}"
            return
        if ran.status not in (self.scenario.statuses if ran.fired else (0,)):
            yield f"it ended with {ran.status}"
        for words in ("Traceback", "internal error", "internal-error", "Exception ignored"):
            if words in ran.err or words in ran.out:
                yield f"it said '{words}'"
        if ran.status not in (0, 1) and "error[" not in ran.err:
            yield "it did not say why"

    def _mended(self) -> Iterator[str]:
        """Is nothing torn, is the next run as if nothing had been, and the store whole?"""
        work = self.place.work
        self._opened, self._moved = set(), set()
        if not self.scenario.rotten:
            yield from checks.torn(work)
        checks.age(work)
        if (work / "store").is_dir():
            checked = self._fsck()
            if checked.status not in (0, 5):
                yield f"fsck ended with {checked.status}: {checked.err}"
        again = self._again()
        if again.status not in (0, *(code for code in self.scenario.statuses if code == 2)):
            yield f"the next run ended with {again.status}: {again.err}"
        else:
            came = self.scenario.came_of(self.place)
            if came != self.expected:
                yield f"the next run came to {came}, not {self.expected}"
        yield from (f"after the next run: {one}" for one in checks.torn(work))
        yield from (f"after the next run: {one}" for one in checks.leftovers(work))
        checked = self._fsck()
        if checked.status != 0:
            yield f"fsck after the next run ended with {checked.status}: {checked.err}"
