"""Gate of `relbuild serve`: refuse a layout of a build here whose image did not pass."""

from __future__ import annotations

from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, RelbuildError
from pipeline.mirror.backends.layout.layout_mirror import is_layout
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_LIMIT, read_evidence
from pipeline.oci import read_layout
from pipeline.reports import report_folder


def refuse_untested(path: Path) -> None:
    """Refuse to serve a layout whose report has no evidence that exactly this image passed.

    Mirrors and layouts without a report are served: a gate elsewhere cleared them, or they were not built by relbuild.
    Raises PublicationRefused `gate-not-passed`.
    """
    if not is_layout(path) or not report_folder(path).is_dir():
        return
    tested = _tested(report_folder(path))
    try:
        image = read_layout(path).digest
    except RelbuildError:  # several images, or none: opening it as a mirror reports what is wrong
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
    """Return the digest of the image in a report's evidence; None if there is no evidence."""
    try:
        with (folder / EVIDENCE_FILE).open("rb") as file:
            return read_evidence(file.read(EVIDENCE_LIMIT + 1)).image
    except (FileNotFoundError, RelbuildError):
        return None
