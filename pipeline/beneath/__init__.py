"""Opening files below a folder, and nothing outside it: the only door to `openat2`.

A name is resolved by the kernel with RESOLVE_BENEATH (openat2(2), Linux 5.6): links are followed as long as they stay
in the folder, and no `..`, absolute link or link of /proc leads out of it, however the folder changes meanwhile. Where
the kernel or a filter of system calls does not offer that, the name is resolved here, one component after the other,
each opened with O_NOFOLLOW, with the same result.

Only regular files (or, where asked for, folders) are opened, without waiting: a FIFO or a device is refused by name.
Every error is an OSError with its file's path, so that callers turn them into errors of their own as they do others.
"""

from pipeline.beneath.folder import (
    Folder,
    GivenFolder,
    open_file,
    read_file,
)
from pipeline.beneath.open_errors import (
    LinkRefused,
    NotRegular,
    PathEscape,
    TooLarge,
    escape_error,
)
from pipeline.beneath.path_resolution import kernel_resolves

__all__ = [
    "Folder",
    "GivenFolder",
    "LinkRefused",
    "NotRegular",
    "PathEscape",
    "TooLarge",
    "escape_error",
    "kernel_resolves",
    "open_file",
    "read_file",
]
