"""Find the files of a package that are left out: documents, manual pages, languages.

This is rpm's skipInstallFiles (rpm, lib/transaction.c), manual pages aside: a file is left out by its own flag,
and a directory that the package owns is left out with the last file in it.
"""

from __future__ import annotations

import posixpath
import stat
from collections import Counter
from collections.abc import Sequence

from pipeline.model.header import FileFlag, FileRecord

MANUALS = "/usr/share/man/"


def excluded_files(files: Sequence[FileRecord], *, docs: bool, man: bool, languages: Sequence[str]) -> frozenset[int]:
    """Return the indices of the files that are not installed.

    `languages` empty or holding `all` means all.
    """
    wanted = () if "all" in languages else tuple(languages)
    if docs and man and not wanted:
        return frozenset()
    out = {index for index, file in enumerate(files) if _left_out(file, docs, man, wanted)}
    folders = {file.path: index for index, file in enumerate(files) if stat.S_ISDIR(file.mode)}
    inside = Counter(posixpath.dirname(file.path) for file in files)
    emptied = {posixpath.dirname(files[index].path) for index in out}
    inside.subtract(posixpath.dirname(files[index].path) for index in out)
    # A directory whose files are all left out is left out too, and may leave its parent empty.
    for folder in sorted(folders, key=lambda path: path.count("/"), reverse=True):
        if folder in emptied and inside[folder] <= 0 and folders[folder] not in out:
            out.add(folders[folder])
            inside[posixpath.dirname(folder)] -= 1
            emptied.add(posixpath.dirname(folder))
    return frozenset(out)


def _left_out(file: FileRecord, docs: bool, man: bool, languages: Sequence[str]) -> bool:
    if languages and file.languages and not _language_wanted(file.languages, languages):
        return True
    if not docs and file.flags & FileFlag.DOC and not file.flags & FileFlag.LICENSE:
        return True
    return not man and not stat.S_ISDIR(file.mode) and file.path.startswith(MANUALS)


def _language_wanted(file: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether a file of these languages is installed for the wanted ones.

    rpm compares as many letters as the file's language has: a file for `de` is installed for `de_AT`.
    """
    return any(language.startswith(tag) for language in wanted for tag in file)
