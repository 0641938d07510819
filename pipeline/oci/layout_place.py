"""Refuse places where a layout cannot be written, before an image is made for it."""

from __future__ import annotations

from pathlib import Path

from pipeline.atomic_folders import require_writable_folder
from pipeline.errors import UsageError
from pipeline.store import require_outside_stores


def require_layout_place(target: Path) -> None:
    """Refuse a place where `write_layout` could not write.

    Nothing is made there. Raises UsageError `not-a-layout` as it does, `output-in-store`, and the system's OSError of
    `target`, or of the folder that it is to be in, if that may not be written to.
    """
    require_outside_stores(target.parent)
    refuse_other_content(target)
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
