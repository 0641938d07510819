"""The path of rpm's database in an image.

The one place that says it, for whoever writes or reads the database.
"""

from __future__ import annotations

from collections.abc import Mapping

FILE = "rpmdb.sqlite"
"""The database's only file."""

FOLDERS = ("/usr/lib/sysimage/rpm", "/usr/share/rpm", "/var/lib/rpm")
"""Folders of the database in distributions. The first holds if a platform says nothing."""

LABEL = "org.relbuild.rpm-database"
"""A label of the image: the folder, where it is none of FOLDERS. Only relbuild sets it, not a recipe."""


def labelled(labels: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return an image's labels, with the path of the database where it is not a default one.

    A label that such an image had for it is left out where the path goes without saying.
    """
    others = {key: value for key, value in labels.items() if key != LABEL}
    return others if folder in FOLDERS else {**others, LABEL: folder}


def database_paths(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The files that may be the database of an image with these labels, the likeliest first."""
    folders = (labels[LABEL],) if LABEL in labels else FOLDERS
    return tuple(f"/{folder.strip('/')}/{FILE}" for folder in folders)
