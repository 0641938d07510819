"""Removal of what earlier nights could not remove from the folder of outputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.atomic_folders import sweep_folder_drafts


def sweep_output(output: Path, names: Iterable[str]) -> None:
    """Remove the drafts of products' layouts and reports that nobody writes any more.

    Who writes a layout or a report sweeps its own; a product that is as it was is not written again, and what a killed
    or failing run left of it would stay.
    """
    if not any(output.glob(".*")):
        return
    # Here and not above: a night in which nothing changed loads as little as it can.
    from pipeline.reports import report_folder

    for layout in (output / name for name in names):
        sweep_folder_drafts(layout, report_folder(layout))
