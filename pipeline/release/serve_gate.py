"""Gate of serving from this machine: an image that a build left here must have passed tests."""

from __future__ import annotations

from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, RelbuildError
from pipeline.mirror.backends.layout.layout_mirror import is_layout
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_LIMIT, read_evidence
from pipeline.oci import read_layout
from pipeline.reports import report_folder


def refuse_untested(path: Path) -> None:
    """Refuse to serve a layout whose report has no evidence that this very image passed.

    The report is the one beside it. A mirror, and a layout without a report, came through a gate elsewhere or are
    somebody's own. Raises PublicationRefused `gate-not-passed`.
    """
    if not is_layout(path) or not report_folder(path).is_dir():
        return
    tested = _tested(report_folder(path))
    try:
        image = read_layout(path).digest
    except RelbuildError:  # several images, or none: a mirror, which says itself what is wrong with it
        image = None
    if image is None or tested != image:
        raise PublicationRefused(
            "gate-not-passed",
            f"the image in '{path}' did not pass its tests"
            if tested is None
            else f"the image in '{path}' was not tested in its current state",
            place=str(report_folder(path)),
            hint="test it with `relbuild build`; to serve it anyway, for debugging: --untested",
        )


def _tested(folder: Path) -> Digest | None:
    """The image that the evidence in a report's folder speaks of; None if there is none."""
    try:
        with (folder / EVIDENCE_FILE).open("rb") as file:
            return read_evidence(file.read(EVIDENCE_LIMIT + 1)).image
    except (FileNotFoundError, RelbuildError):
        return None
