"""Data classes for the signing keys that a repository trusts, and for unusable ones."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never

from pipeline.lazy_dataclasses import dataclass


class KeyFault(StrEnum):
    """The reason why no signature by a key counts."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class UnusableKey:
    """A key or subkey in a trusted key file that verifies no signature.

    `fingerprint` is upper-case hex. `key_ids` are its id and those of its subkeys, unusable with it, as signatures name
    them (16 digits). `since` is when it expired or was revoked, in seconds since the epoch, 0 if unknown. `detail`
    explains the fault of an unreadable key.
    """

    fingerprint: str
    key_ids: tuple[str, ...]
    fault: KeyFault
    subkey: bool = False
    since: int = 0
    detail: str = ""

    def __str__(self) -> str:
        name = f"{'subkey' if self.subkey else 'key'} {self.fingerprint}"
        match self.fault:
            case KeyFault.EXPIRED:
                return f"{name} expired{self._date(' on ')}"
            case KeyFault.REVOKED:
                return f"{name} was revoked{self._date(' on ')}"
            case KeyFault.UNREADABLE:
                return f"{name} cannot be used here: {self.detail}"
            case _ as other:
                assert_never(other)

    def _date(self, before: str) -> str:
        if not self.since:
            return ""
        return before + datetime.fromtimestamp(self.since, UTC).date().isoformat()


class AcceptedSignature(StrEnum):
    """Kinds of weaker signatures that a repository may accept."""

    LEGACY_HEADER_PAYLOAD = "legacy-header-payload"
    SHA1 = "sha1"


@dataclass(frozen=True, slots=True)
class PackageTrust:
    """The keys that may sign one repository's packages, and the weaker signatures it accepts.

    `certificates` are armored by relbuild, each in a block of its own, sorted, without their unusable keys; these are
    `unusable`.
    """

    certificates: tuple[bytes, ...] = ()
    unusable: tuple[UnusableKey, ...] = ()
    accept: frozenset[AcceptedSignature] = frozenset()
