"""Path and format of rpm's database in an image, and the image labels that name them.

They are defined only here, for the code that writes the database and the code that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


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
    """Return the possible database files of an image with these labels, the likeliest first.

    An image without labels may be foreign, so all formats are looked for. There is no path where the label names a
    format that this release does not know.
    """
    formats, folders = list(DatabaseFormat), list(DATABASE_FOLDERS)
    if DATABASE_LABEL in labels:
        named = labels.get(FORMAT_LABEL, DatabaseFormat.SQLITE)
        formats, folders = [one for one in DatabaseFormat if one == named], [labels[DATABASE_LABEL]]
    return tuple(f"/{folder.strip('/')}/{DATABASE_FILES[one]}" for one in formats for folder in folders)
