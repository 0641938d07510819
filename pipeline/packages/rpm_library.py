"""rpm's library: its Python bindings where they fit, else its C functions; its log silenced."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import EnvironmentLacking
from pipeline.packages.rpm_bindings import binding_folders, load_bindings

if TYPE_CHECKING:
    import rpm
else:
    rpm = sys.modules.get("rpm") or load_bindings([*binding_folders()])
    if rpm is None:
        try:
            rpm = importlib.import_module("pipeline.packages.librpm")
        except ImportError as error:
            raise EnvironmentLacking(
                "rpm-library-missing",
                f"rpm's library cannot be loaded: {error}",
                hint="install rpm 4.16 to 6 (Debian and Fedora: the package 'rpm')",
            ) from error

# rpm quotes packages to standard error as they are. What matters of that is in the errors that relbuild raises, which
# are escaped where they are shown; rpm's critical messages, with which it ends the process, quote nothing.
rpm.setVerbosity(rpm.RPMLOG_CRIT)


def library_origin() -> str:
    """Return how rpm's library is reached: by which bindings, or without any."""
    if rpm.__name__ == "rpm":
        return f"Python bindings in {Path(str(rpm.__file__)).parent}"
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{rpm.SONAME} itself, as no bindings here are for Python {version}"


def header_from_handle(transaction: rpm.TransactionSet, handle: int, path: Path) -> rpm.hdr:
    """Read and verify the header of the package at `path` from its open file.

    Raises rpm.error, and OSError where the process has no file descriptor left, which is no fault of the package.
    """
    try:
        return transaction.hdrFromFdno(handle)
    except OSError as error:  # rpm's library duplicates the handle; its bindings give no number.
        number = error.errno or errno.EMFILE
        raise OSError(number, os.strerror(number), str(path)) from error


__all__ = ["header_from_handle", "library_origin", "rpm"]
