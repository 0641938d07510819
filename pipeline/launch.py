"""From an image to a verdict: unpacked from the very blobs that are shipped, launched, tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.digest import identity
from pipeline.layers import unpack
from pipeline.model.image import Image
from pipeline.model.smoke import SmokePlan, SmokeReport
from pipeline.progress import Progress
from pipeline.sandbox import Station
from pipeline.smoke import plan_digest, read_report, report_json, smoke
from pipeline.store import Store

FORMAT = 1
"""Raise it when the same image, checks and runtime may come to another verdict."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A verdict, and whether it is from before."""

    report: SmokeReport
    reused: bool


def run_tests(
    image: Image,
    plan: SmokePlan,
    *,
    store: Store,
    station: Station,
    progress: Progress,
    clock: Callable[[], float],
    again: bool = False,
) -> Tested:
    """Launch `image` under the limits of `plan` and ask its checks.

    The layers are unpacked from the store's blobs, with digest and diff_id checked on the way. A passing
    verdict on the same image, the same plan and the same runtime is reused unless `again`. An image that does
    not pass is no error here: the report says so.
    """
    name = identity("smoke", FORMAT, image=image.digest, plan=plan_digest(plan), runtime=station.runtime)
    known = None if again else store.recall(name)
    if isinstance(known, dict):
        report = read_report(known)
        if report.passed and report.image == image.digest:
            return Tested(report, reused=True)
    lowers = tuple(unpacked(image, store, progress))
    report = smoke(image, lowers, plan, station=station, progress=progress, clock=clock)
    if report.passed:
        store.remember(name, report_json(report))
    return Tested(report, reused=False)


def unpacked(image: Image, store: Store, progress: Progress) -> tuple[Path, ...]:
    """The unpacked layers of an image whose blobs are in the store, lowest first."""
    return tuple(unpack(layer, store=store, progress=progress) for layer in image.layers)
