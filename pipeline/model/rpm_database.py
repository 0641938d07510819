"""Paths of rpm's database in an image, and the image label that names another folder.

They are defined only here, for the code that writes the database and the code that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

DATABASE_FILE = "rpmdb.sqlite"
"""The database's only file."""

DATABASE_FOLDERS = ("/usr/lib/sysimage/rpm", "/usr/share/rpm", "/var/lib/rpm")
"""Folders of the database in distributions. The first holds if a platform says nothing."""

DATABASE_LABEL = "org.relbuild.rpm-database"
"""A label of the image: the folder, where it is none of DATABASE_FOLDERS. Only relbuild sets it, not a recipe."""


def labelled(labels: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return an image's labels, with the path of the database where it is not a default one.

    Where the folder is a default one, such a label is left out.
    """
    others = {key: value for key, value in labels.items() if key != DATABASE_LABEL}
    return others if folder in DATABASE_FOLDERS else {**others, DATABASE_LABEL: folder}


def database_paths(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return the possible database files of an image with these labels, the likeliest first."""
    folders = (labels[DATABASE_LABEL],) if DATABASE_LABEL in labels else DATABASE_FOLDERS
    return tuple(f"/{folder.strip('/')}/{DATABASE_FILE}" for folder in folders)
