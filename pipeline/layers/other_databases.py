"""Remove the RPM databases that an image would have beside its own."""

from __future__ import annotations

import stat
from collections.abc import Collection

from pipeline.model.rpm_database import DATABASE_FILES, DATABASE_FOLDERS, DatabaseFormat
from pipeline.packages import database_file_names
from pipeline.sandbox import RootFs


def remove_other_databases(files: RootFs, folder: str, placed: Collection[str]) -> None:
    """Remove databases of other formats in `folder`, and all in distributions' other folders.

    A parent image may have one, of another format or folder than its child's. `placed` are the names of the files of
    the image's own database. A symlink to one of these, or to the folder, is another path of the same database and
    stays.
    """
    if files.stat(folder) is None:
        return
    own = {f"{files.real(folder)}/{name}" for name in placed}
    for other in (folder, *DATABASE_FOLDERS):
        real = files.real(other) if files.stat(other) is not None else None
        for form in DatabaseFormat if real is not None else ():
            headers = f"{real}/{DATABASE_FILES[form]}"
            if _is_file(files, headers) and files.real(headers) not in own:
                for name in database_file_names(form):
                    if _is_file(files, f"{real}/{name}"):
                        files.remove(f"{real}/{name}")


def _is_file(files: RootFs, path: str) -> bool:
    status = files.stat(path, follow=False)
    return status is not None and not stat.S_ISDIR(status.st_mode)
