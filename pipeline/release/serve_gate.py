"""Gate of `relbuild serve`: refuse a layout of a build here with an image that did not pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.beneath import NotRegular, open_unlogged
from pipeline.digest import Digest
from pipeline.errors import Problem, PublicationRefused, RelbuildError
from pipeline.mirror.backends.layout.layout_mirror import is_layout
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_LIMIT, read_evidence
from pipeline.model.image import Descriptor
from pipeline.oci import read_layout, read_layout_index
from pipeline.reports import member_layout, report_folder


def refuse_untested(path: Path) -> None:
    """Refuse to serve a layout of a build here without evidence that exactly its images passed.

    An index is of a build here if the layout or the report of one of its images is beside it, and the report of each
    is asked for its evidence. Mirrors and other layouts without a report are served: a gate elsewhere cleared them, or
    they were not built by relbuild. Raises PublicationRefused `gate-not-passed` with a problem for each image.
    """
    if not is_layout(path):
        return
    layout = path.resolve()  # '.' has no name, and the report of a link's target is beside the target
    members = [(member_layout(layout, arch), image.digest, arch) for image, arch in _listed(layout)]
    if any(member.exists() or report_folder(member).exists() for member, _, _ in members):
        problems = tuple(
            problem
            for member, image, arch in members
            for problem in _doubt(report_folder(member), image, f"the image for {arch or 'an unknown platform'}")
        )
    elif report_folder(layout).is_dir():
        problems = tuple(_doubt(report_folder(layout), _image(layout), "the image"))
    else:
        return
    if problems:
        raise PublicationRefused.of(problems)


def _listed(layout: Path) -> tuple[tuple[Descriptor, str], ...]:
    """Return the images of a layout with one index, each with rpm's architecture; () for others."""
    try:
        return read_layout_index(layout)
    except RelbuildError:  # opening it as a mirror reports what is wrong
        return ()


def _image(layout: Path) -> Digest | None:
    try:
        return read_layout(layout).digest
    except RelbuildError:  # several images, or none: opening it as a mirror reports what is wrong
        return None


def _doubt(report: Path, image: Digest | None, name: str) -> Iterator[Problem]:
    """Yield the problem of an image whose report has no evidence that exactly it passed."""
    tested = _tested(report)
    if image is not None and tested == image:
        return
    layout = report.with_suffix("")
    yield Problem(
        "gate-not-passed",
        f"{name} in '{layout}' did not pass its tests"
        if tested is None
        else f"{name} in '{layout}' was not tested in its current state",
        str(report),
        "test it with `relbuild build`; to serve it anyway, for debugging: --untested",
    )


def _tested(folder: Path) -> Digest | None:
    """Return the digest of the image in a report's evidence; None if there is no evidence."""
    try:
        with open_unlogged(folder / EVIDENCE_FILE) as file:
            return read_evidence(file.read(EVIDENCE_LIMIT + 1)).image
    except (FileNotFoundError, NotADirectoryError, NotRegular, RelbuildError):
        return None
