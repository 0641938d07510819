"""The key `rpm-database` of platforms."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from pipeline.model.rpm_database import DATABASE_FOLDERS, DatabaseFormat, RpmDatabase
from pipeline.recipes.fields import Strict, TargetPath, choice


class RpmDatabaseDocument(Strict):
    """The folder and format of the RPM database, as the platform's own rpm reads them.

    What is not given is that of the platform that is extended.
    """

    path: TargetPath | None = Field(default=None, description="the folder", examples=[DATABASE_FOLDERS[-1]])
    format: Annotated[DatabaseFormat, choice(DatabaseFormat, "a format of rpm's database")] | None = Field(
        default=None,
        description="`sqlite` (EL9 and later, Fedora, Amazon Linux 2023), `bdb` (Berkeley DB: EL8, Amazon Linux 2), "
        "`ndb` (openSUSE); default: sqlite",
    )


def _kind(value: object) -> str:
    return "<database>" if isinstance(value, dict | RpmDatabaseDocument) else "<path>"


RpmDatabaseItem = Annotated[
    Annotated[TargetPath, Tag("<path>")] | Annotated[RpmDatabaseDocument, Tag("<database>")], Discriminator(_kind)
]


def database_of(document: str | RpmDatabaseDocument | None, base: RpmDatabase) -> RpmDatabase:
    """Return the database that a platform names, completed from the one that it extends."""
    if isinstance(document, RpmDatabaseDocument):
        return RpmDatabase(document.path or base.folder, document.format or base.format)
    return replace(base, folder=document) if document else base
