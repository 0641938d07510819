"""Refuse places where a layout and its report cannot be written, before there is an image."""

from __future__ import annotations

from pathlib import Path

from pipeline.atomic_folders import require_writable_folder
from pipeline.beneath import read_unlogged
from pipeline.errors import RelbuildError, UsageError
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_SEAL
from pipeline.model.report_names import REPORT_FILE, REPORT_SUFFIX
from pipeline.oci import media_types
from pipeline.oci.image_manifest import DOCUMENT_LIMIT, JsonReader
from pipeline.store import require_outside_stores

_RETESTED = frozenset({EVIDENCE_FILE, EVIDENCE_SEAL})
"""All that a report's folder has if the image was built elsewhere and tested here."""


def require_layout_place(target: Path) -> None:
    """Refuse a place where a layout or its report could not be written.

    Nothing is made there. Raises UsageError `not-a-layout` as `write_layout` does, `not-a-report`, `output-in-store`,
    and the system's OSError of `target`, or of the folder that it is to be in, if that may not be written to.
    """
    require_outside_stores(target.parent)
    refuse_other_content(target)
    refuse_other_report(target.with_name(f"{target.name}{REPORT_SUFFIX}"))
    require_writable_folder(target.parent)


def refuse_other_content(target: Path) -> None:
    """Refuse a place of something else than a layout.

    Raises UsageError `not-a-layout` for a folder with something in it, NotADirectoryError for a file.
    """
    if target.exists() and not (target / "oci-layout").exists() and any(target.iterdir()):
        raise UsageError(
            "not-a-layout",
            f"'{target}' is not empty and not an OCI layout",
            place=str(target),
            hint="choose another --output, or remove it",
        )


def refuse_other_product(target: Path, product: str) -> None:
    """Refuse a place of the layout of another product than the one that is to be written there.

    A member of an index goes to NAME.ARCH, which may be a product's name, too. What cannot be read, or has no title, is
    no product's. Raises UsageError `layout-of-another`.
    """
    title = _layout_title(target)
    if title and title != product:
        raise UsageError(
            "layout-of-another",
            f"the layout at '{target}' is of the product '{title[:80]}', and would be replaced by one of '{product}'",
            place=str(target),
            hint="choose another --output, or move it away with its report",
        )


def _layout_title(target: Path) -> str:
    """Return the title of a layout's image or index, which is its product's name.

    "" if there is none that can be read.
    """
    try:
        manifests = _read_json(target / "index.json").get("manifests").items()
        digest = manifests[0].descriptor().digest if manifests else None
        if digest is None:
            return ""
        notes = _read_json(target / "blobs" / "sha256" / digest.hex).get("annotations").members()
        return notes[media_types.TITLE].text() if media_types.TITLE in notes else ""
    except (OSError, RelbuildError):
        return ""


def _read_json(path: Path) -> JsonReader:
    return JsonReader.parse(read_unlogged(path, DOCUMENT_LIMIT), path.name)


def refuse_other_report(folder: Path) -> None:
    """Refuse a place of something else than a report's folder. Raises UsageError `not-a-report`."""
    if is_other_folder(folder):
        raise UsageError(
            "not-a-report",
            f"'{folder}' is where the report of the image goes, and has something else",
            place=str(folder),
            hint="choose another --output, or move it away",
        )


def is_other_folder(folder: Path) -> bool:
    """Return whether something else than a report's folder or an empty one is at `folder`.

    A symbolic link counts as what it leads to; one that leads nowhere is nothing.
    """
    if not folder.is_dir():
        return folder.exists()
    found = {path.name for path in folder.iterdir()}
    return REPORT_FILE not in found and not found <= _RETESTED
