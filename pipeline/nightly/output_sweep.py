"""Remove drafts of layouts and reports that killed runs left in the output folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.atomic_folders import sweep_folder_drafts


def sweep_output(output: Path, names: Iterable[str]) -> None:
    """Remove the drafts of products' layouts and reports whose writers have ended.

    Writing a layout or report removes its old drafts; those of unchanged products, which are not written again, would
    stay.
    """
    if not any(output.glob(".*")):
        return
    # Here and not above: a night in which nothing changed imports as little as it can.
    from pipeline.reports import report_folder

    for layout in (output / name for name in names):
        sweep_folder_drafts(layout, report_folder(layout))
