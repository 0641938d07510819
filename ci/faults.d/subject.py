"""One command, and what each fault does to it."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import checks
from crash import Loss, crash
from plan import Call, Fault, Plan
from runs import Injected, Ran, reap, relbuild
from scenarios import Place, Scenario, again, command

from tests.system.leftovers import Snapshot, left_since, marks_of, snapshot

_KEPT = 400
"""Characters of what was printed that are kept of a fault that did harm."""


@dataclass(slots=True)
class Tally:
    """Of one command and fault."""

    calls: int = 0
    runs: int = 0
    harmless: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


class Subject:
    """A command that faults happen to."""

    def __init__(self, place: Place, scenario: Scenario, plan: Plan) -> None:
        self.place, self.scenario, self.plan = place, scenario, plan
        self.expected: object = None
        self._calls = 0
        self._made: list[Call] = []
        self._round = 0

    def undisturbed(self) -> list[Call]:
        """The calls of a run without a fault, and what must come of each other one."""
        ran = self._run(None, 0, forever=False)
        if ran.status != 0:
            sys.exit(f"{self.scenario.name} ended with {ran.status} without a fault:\n{ran.err}")
        calls = list(self.plan.calls())
        self._calls = len(calls)
        self._again()
        self.expected = self.scenario.came_of(self.place)
        return calls

    def short(self, path: str) -> str:
        """A path in the folder of work."""
        return path.replace(f"{self.place.work}/", "")

    def try_fault(self, fault: Fault, number: int, tally: Tally, *, forever: bool, seed: int) -> None:
        """Let it happen, and look."""
        work = self.place.work
        before = snapshot(work / "store", work / "output", work / "mirror")
        ran = self._run(fault, number, forever=forever)
        tally.runs += 1
        tally.statuses[ran.status] += 1
        problems = list(self._ended(ran, fault))
        if not ran.fired and fault is not Fault.CRASH:
            tally.harmless += 1
        problems += [f"left: {one}" for one in self._left(before)]
        if fault is Fault.CRASH:
            problems += self._crashed(number, ran, seed)
        if not self.scenario.rotten:
            problems += list(checks.torn(work))
        checks.age(work)
        problems += list(self._mended())
        problems += [f"left at the end: {one}" for one in self._left(before)]
        reap()
        if problems:
            told = f"{self.scenario.name}, {fault} at {number} ({self._where(number)}), status {ran.status}"
            tally.bad.append(told)
            print(f"BAD {told}", *(f"    {one[:_KEPT]}" for one in problems[:6]), sep="\n", flush=True)
            if ran.err:
                print("    said:", ran.err[-_KEPT:].replace("\n", "\n    "), flush=True)

    def _left(self, before: Snapshot) -> Iterator[str]:
        """What is left of relbuild's; networks that have not its mark are of others who work on this machine."""
        marks = marks_of([self.place.work / "store"])
        for one in left_since(before, within=6.0):
            if not one.startswith(("network namespace", "link")) or any(mark in one for mark in marks):
                yield one

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
        time.sleep(self.scenario.wait)
        words = command(self.scenario, self.place)
        injected = Injected(self.plan, fault, number, forever, self.scenario.sends)
        ran = relbuild(words, self.place.work, self.place.root, injected)
        self._made = list(self.plan.calls())
        return ran

    def _again(self) -> Ran:
        return relbuild(again(self.scenario, self.place), self.place.work, self.place.root)

    def _ended(self, ran: Ran, fault: Fault) -> Iterator[str]:
        """How it ended: killed, or with an error of its own."""
        if fault.ends:
            if ran.fired and ran.status != -9:
                yield f"killed, it ended with {ran.status}"
            return
        if ran.status not in self.scenario.statuses:
            yield f"it ended with {ran.status}"
        for words in ("Traceback", "internal error", "internal-error", "Exception ignored"):
            if words in ran.err or words in ran.out:
                yield f"it said '{words}'"
        if ran.status not in (0, 1) and "error[" not in ran.err:
            yield "it did not say why"

    def _mended(self) -> Iterator[str]:
        """Is the next run as if nothing had been, and the store whole?"""
        store = ["store", "fsck", "--store", "store"]
        if (self.place.work / "store").is_dir():
            checked = relbuild(store, self.place.work, self.place.root)
            if checked.status not in (0, 5):
                yield f"fsck ended with {checked.status}: {checked.err}"
        again = self._again()
        if again.status not in (0, *(code for code in self.scenario.statuses if code == 2)):
            yield f"the next run ended with {again.status}: {again.err}"
        else:
            came = self.scenario.came_of(self.place)
            if came != self.expected:
                yield f"the next run came to {came}, not {self.expected}"
        yield from (f"after the next run: {one}" for one in checks.torn(self.place.work))
        yield from (f"after the next run: {one}" for one in checks.leftovers(self.place.work))
        checked = relbuild(store, self.place.work, self.place.root)
        if checked.status != 0:
            yield f"fsck after the next run ended with {checked.status}: {checked.err}"
