"""Payload digests of the packages that this process has copied into the store."""

from __future__ import annotations

import os

from pipeline.digest import Digest
from pipeline.packages import PayloadHash
from pipeline.store import Stamp, status_stamp


class CopiedPayloads:
    """The payload's digest of each package that was copied, with the stamp of the file then.

    It is believed for a file with this stamp alone, as that file's own digest is, and by this process alone. It is
    computed of the bytes that were written, when nothing of the package was verified, and compared with the header's
    when the signature was.
    """

    def __init__(self) -> None:
        self._copied: dict[Digest, tuple[Stamp, PayloadHash]] = {}

    def passing(self, package: Digest) -> _PassingPackage:
        """Return what a package's file passes by while it is copied. For any thread."""
        return _PassingPackage(package, self._copied)

    def of(self, package: Digest, stamp: Stamp) -> PayloadHash | None:
        """Return the hash of a package's payload if its file has the stamp of the copy."""
        copied = self._copied.get(package)
        return copied[1] if copied is not None and copied[0] == stamp else None


class _PassingPackage(PayloadHash):
    """A package that is copied; kept with the stamp of its file at the end."""

    def __init__(self, package: Digest, copied: dict[Digest, tuple[Stamp, PayloadHash]]) -> None:
        super().__init__()
        self._package = package
        self._copied = copied

    def copied(self, status: os.stat_result) -> None:
        stamp = status_stamp(status)
        if stamp is not None:
            self._copied[self._package] = stamp, self
