"""Read the packages of all RPM databases that one image has.

Which of them the image's own rpm reads is up to its configuration, so no database may hide a package of another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from pipeline.errors import VerificationError
from pipeline.model.header import ChangelogEntry
from pipeline.model.package import Nevra
from pipeline.packages.rpmdb_reader import DATABASE_LIMIT, Installed, installed_changelogs, read_installed


def require_database_size(size: int, path: str) -> None:
    """Refuse databases of more than DATABASE_LIMIT bytes in one image.

    `path` is that of the last. Raises VerificationError `rpmdb-too-large`.
    """
    if size > DATABASE_LIMIT:
        raise VerificationError(
            "rpmdb-too-large",
            f"the image's RPM databases have more than {DATABASE_LIMIT} bytes with '{path}'",
            place=path,
            hint="check what else is in the file, and rebuild it: rpm --rebuilddb",
        )


def read_all_installed(databases: Mapping[str, bytes]) -> tuple[Installed, ...]:
    """Read the packages of all databases, each once, sorted by NEVRA.

    `databases` are by their path in the image. Raises VerificationError `rpmdb-damaged` with that path.
    """
    found: list[Installed] = []
    for path, database in databases.items():
        known = set(found)
        try:
            found += [one for one in read_installed(database) if one not in known]
        except VerificationError as error:
            raise VerificationError.of([replace(one, place=path) for one in error.problems]) from error
    return tuple(sorted(found, key=lambda package: str(package.nevra)))


def all_changelogs(databases: Iterable[bytes], wanted: Collection[Nevra]) -> Mapping[Nevra, tuple[ChangelogEntry, ...]]:
    """Read the newest changelog entries of `wanted` packages in all databases.

    Raises VerificationError `rpmdb-damaged`.
    """
    found: dict[Nevra, tuple[ChangelogEntry, ...]] = {}
    for database in databases:
        for nevra, entries in installed_changelogs(database, wanted).items():
            found[nevra] = tuple(dict.fromkeys((*found.get(nevra, ()), *entries)))
    return found
