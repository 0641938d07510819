"""Compute the final file states of packages, and write them into a new rpm database."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from pipeline.model.header import PackageHeader
from pipeline.model.rpm_database import DatabaseFormat
from pipeline.model.tree import Tree
from pipeline.packages import DatabaseRecord, write_database
from pipeline.store import Store
from pipeline.trees import STATE_NOT_INSTALLED, canonical_path


def matching_paths(pattern: str, tree: Tree) -> list[str]:
    """Return the canonical paths in `tree` that match a line under `remove`.

    Links among its directories are followed.
    """
    wanted = pattern.strip("/")
    found = [path for path in tree.entries if fnmatch.fnmatchcase(path, wanted)]
    if found:
        return found
    canonical = canonical_path(f"/{wanted}", tree)
    return [canonical] if canonical in tree.entries else []


def final_file_states(
    states: Mapping[str, tuple[int, ...]], paths: Mapping[str, tuple[str, ...]], remove: Sequence[str], tree: Tree
) -> dict[str, tuple[int, ...]]:
    """Return rpm's states of all files by NEVRA in the finished image.

    Files at or below a path in `remove` count as not installed. `paths` are the canonical paths of the files of each
    package; they are not read where nothing is removed.
    """
    gone = {path for pattern in remove for path in matching_paths(pattern, tree)}
    if not gone:
        return dict(states)
    return {
        nevra: tuple(
            STATE_NOT_INSTALLED if _beneath(path, gone) else state
            for path, state in zip(paths[nevra], known, strict=True)
        )
        for nevra, known in states.items()
    }


def _beneath(path: str, gone: Set[str]) -> bool:
    while path not in gone:
        path = path.rpartition("/")[0]
        if not path:
            return False
    return True


def write_package_records(
    installed: Sequence[tuple[PackageHeader, int]],
    states: Mapping[str, tuple[int, ...]],
    color: int,
    *,
    form: DatabaseFormat,
    store: Store,
    folder: Path,
) -> Path:
    """Write rpm's database into a new directory in `folder`, and return that directory.

    `installed` are the packages with the times of their installation, in its order; `states` is by NEVRA, `color` is
    rpm's transaction colour, `form` the format that the platform's rpm reads.
    """
    records = [
        DatabaseRecord(
            rpm=store.blob(header.checksum),
            nevra=header.nevra,
            states=states[str(header.nevra)],
            install_time=when,
            install_color=color,
        )
        for header, when in installed
    ]
    made = folder / "rpmdb"
    made.mkdir()
    write_database(made, records, form)
    return made
