"""Path and format of rpm's database in an image, and the image labels that name them.

They are defined only here, for the code that writes the database and the code that reads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass


class DatabaseFormat(StrEnum):
    """The formats of rpm's database; the value is rpm's own name of the backend (`_db_backend`)."""

    SQLITE = "sqlite"
    """Fedora 33 and later, EL9 and later, Amazon Linux 2023, Azure Linux."""
    BDB = "bdb"
    """Berkeley DB: EL8 and older, Amazon Linux 2."""
    NDB = "ndb"
    """rpm's own, of openSUSE and SUSE."""


DATABASE_FILES: Mapping[DatabaseFormat, str] = {
    DatabaseFormat.SQLITE: "rpmdb.sqlite",
    DatabaseFormat.BDB: "Packages",
    DatabaseFormat.NDB: "Packages.db",
}
"""The file with the headers in each format, by which a database is found."""

DATABASE_FOLDERS = ("/usr/lib/sysimage/rpm", "/usr/share/rpm", "/var/lib/rpm")
"""Folders of the database in distributions. The first holds if a platform says nothing."""

DATABASE_LABEL = "org.relbuild.rpm-database"
"""A label of the image: the folder, where it is none of DATABASE_FOLDERS. Only relbuild sets it, not a recipe."""

FORMAT_LABEL = "org.relbuild.rpm-database-format"
"""A label of the image: the format, where it is not SQLite; DATABASE_LABEL has the folder. Only relbuild sets it."""

FOLDER_LIMIT = 1024
"""Bytes of a folder in DATABASE_LABEL: far less than PATH_MAX, so that the kernel takes any path in it."""

DATABASE_LEFTOVERS = ("__db.*", "*-wal", "*-shm")
"""Files that rpm may leave beside a database that it opened, with process numbers, times, or changes to that database.
Its locks are empty files, which may stay."""


@dataclass(frozen=True, slots=True)
class RpmDatabase:
    """The folder of rpm's database in a platform's images, and its format."""

    folder: str = DATABASE_FOLDERS[0]
    format: DatabaseFormat = DatabaseFormat.SQLITE

    @property
    def inputs(self) -> list[str]:
        """The parts of a layer's identity.

        The usual format is left out, as it was when there was no other.
        """
        return [self.folder] if self.format is DatabaseFormat.SQLITE else [self.folder, self.format]


def labelled(labels: Mapping[str, str], database: RpmDatabase) -> dict[str, str]:
    """Return an image's labels, with the folder and format of an unusual database.

    Where they are the usual ones, such labels are left out.
    """
    others = {key: value for key, value in labels.items() if key not in (DATABASE_LABEL, FORMAT_LABEL)}
    if database.format is not DatabaseFormat.SQLITE:
        return {**others, DATABASE_LABEL: database.folder, FORMAT_LABEL: database.format}
    return others if database.folder in DATABASE_FOLDERS else {**others, DATABASE_LABEL: database.folder}


def database_paths(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return all possible database files of an image with these labels, the likeliest first.

    A label adds a folder, and hides none: an image may be foreign, and its label or one of its files a decoy. There is
    no path where the label names a format that this release does not know. Raises VerificationError
    `rpmdb-label-malformed`.
    """
    formats, folders = list(DatabaseFormat), list(DATABASE_FOLDERS)
    if DATABASE_LABEL in labels:
        named = labels.get(FORMAT_LABEL, DatabaseFormat.SQLITE)
        if named not in formats:
            return ()
        formats.sort(key=lambda one: one != named)
        folders.insert(0, _labelled_folder(labels[DATABASE_LABEL]))
    paths = (f"/{folder.strip('/')}/{DATABASE_FILES[one]}" for one in formats for folder in folders)
    return tuple(dict.fromkeys(paths))


def _labelled_folder(folder: str) -> str:
    try:
        size = len(os.fsencode(folder))
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= FOLDER_LIMIT or not folder.startswith("/") or "\0" in folder:
        raise VerificationError(
            "rpmdb-label-malformed",
            f"the image's label {DATABASE_LABEL} names no folder: '{folder[:200]}'",
            hint="build the image again with relbuild, which sets the label",
        )
    return folder
