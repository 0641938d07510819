"""Open files below a folder, and never outside of it, by openat2(2) or an equal walk.

A name is resolved by the kernel with RESOLVE_BENEATH (openat2(2), Linux 5.6): links are followed as long as they stay
in the folder, and no `..`, absolute link or link of /proc leads out of it, however the folder changes meanwhile. Where
the kernel lacks it or a seccomp filter refuses it, the name is resolved here, one component after the other, each
opened with O_NOFOLLOW, with the same result.

Only regular files (or, where asked for, folders) are opened, without blocking: a FIFO or a device raises NotRegular.
Every error is an OSError with its file's path, so that callers convert them like other OSErrors.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.beneath.folder import (
        Folder,
        GivenFolder,
        open_file,
        open_unlogged,
        read_file,
        read_unlogged,
    )
    from pipeline.beneath.open_errors import (
        LinkRefused,
        NotRegular,
        PathEscape,
        TooLarge,
        escape_error,
    )
    from pipeline.beneath.path_resolution import kernel_resolves, open_without_waiting
    from pipeline.beneath.read_cache import ReadCache, ReadSnapshot
    from pipeline.beneath.read_log import (
        ReadLog,
        is_there,
        list_folder,
        logged_path,
        logged_reads,
        note_read,
    )

__all__ = [
    "Folder",
    "GivenFolder",
    "LinkRefused",
    "NotRegular",
    "PathEscape",
    "ReadCache",
    "ReadLog",
    "ReadSnapshot",
    "TooLarge",
    "escape_error",
    "is_there",
    "kernel_resolves",
    "list_folder",
    "logged_path",
    "logged_reads",
    "note_read",
    "open_file",
    "open_unlogged",
    "open_without_waiting",
    "read_file",
    "read_unlogged",
]
