"""Keys that sign packages: the unusable ones, and the trust that a repository has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never


class KeyFault(StrEnum):
    """The reason why a key counts for nothing."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class UnusableKey:
    """A key or subkey of a trusted file by which no signature is good.

    `fingerprint` is upper-case hex; `key_ids` are its id and those of the subkeys that fall with it, as signatures name
    them (16 digits); `since` is when it expired or was revoked, in seconds since the epoch, 0 if nothing says; `detail`
    says more of one that is unreadable.
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
    """The keys by which the packages of one repository may be signed, and what else it accepts.

    `certificates` are armored, one each, sorted, without what counts for nothing; `unusable` is what they lack.
    """

    certificates: tuple[bytes, ...] = ()
    unusable: tuple[UnusableKey, ...] = ()
    accept: frozenset[AcceptedSignature] = frozenset()
