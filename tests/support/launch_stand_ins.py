"""A store, and stand-ins for what unpacks, launches and reads images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline import launch, layers, smoke
from pipeline.model.evidence import Contents, PackageLicense
from pipeline.model.image import Image
from pipeline.model.plan_form import plan_digest
from pipeline.model.smoke import SmokePlan
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.journal import Journal
from tests.support.tested_images import (
    PLAN,
    RUNTIME,
    image,
    report,
)

CONTENTS = Contents("tiny", "1.0", "amd64", (PackageLicense("bash-5.2-1.x86_64", "GPLv3+"),))


class Bench:
    """A store, and stand-ins for what unpacks, launches and reads images."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self.store, self.journal = store, journal
        self.runtime = RUNTIME
        self.verdict: Any = report
        journal.stand_in(
            layers, layers.lower_folders, lambda found, **more: tuple(Path("/trees") / one.name for one in found)
        )
        journal.stand_in(smoke, smoke.smoke, self._smoke)
        journal.stand_in(layers, layers.read_contents, lambda made, lowers: replace(CONTENTS, name=made.name))

    def _smoke(self, made: Image, lowers: Any, plan: SmokePlan, **more: Any) -> Any:
        found = self.verdict(made)
        return replace(found, plan=plan_digest(plan), asked=plan, runtime=self.runtime)

    def test(self, made: Image | None = None, plan: SmokePlan = PLAN, **more: Any) -> launch.SmokeResult:
        sandboxes: Any = SimpleNamespace(runtime=self.runtime)
        given = {"store": self.store, "sandboxes": sandboxes, "progress": QUIET, "clock": lambda: 0.0, **more}
        return launch.run_tests(made or image(), plan, **given)

    @property
    def launches(self) -> int:
        return len(self.journal.of(smoke.smoke))
