"""Data classes for the result of a scrub of a mirror, and their JSON values."""

from __future__ import annotations

from enum import StrEnum

from pipeline.lazy_dataclasses import dataclass


class ScrubbedObject(StrEnum):
    """Kind of object that a finding is about."""

    BLOB = "blob"
    MANIFEST = "manifest"
    REFERRERS = "list of referrers"
    TAG = "tag"
    LISTING = "list"
    """Of tags, or of repositories."""
    MARKER = "file"
    """The one by which a folder is known as a mirror, or what is in the place of a folder or lock of a mirror."""


class DamageKind(StrEnum):
    """Kind of damage that a scrub found."""

    ROTTEN = "rotten"
    """Other bytes than its digest promises, unreadable, malformed, or a link where a file belongs."""
    MISSING = "missing"
    OUTDATED = "outdated"
    """A list that does not say what is there."""


class RepairOutcome(StrEnum):
    """Outcome of a finding."""

    HEALED = "healed"
    ASIDE = "put aside"
    """Nothing needs it."""
    LOST = "not healed"
    KEPT = "not healed: it was sent again, and the registry keeps what it has"


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage that a scrub found.

    `name`: digest, or tag, of `repository` ("": of the whole mirror); `source`: from where it was healed.
    """

    thing: ScrubbedObject
    wrong: DamageKind
    name: str
    repository: str
    fate: RepairOutcome
    source: str = ""

    def json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "thing": str(self.thing),
            "wrong": str(self.wrong),
            "name": self.name,
            "repository": self.repository,
            "fate": str(self.fate),
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """The result of a scrub.

    `blobs`, `bytes_read`, `manifests`, `tags`: what was read; `earlier`: blobs that an interrupted scrub had read
    already; `drafts`: temporary files of killed processes that were removed.
    """

    mirror: str
    blobs: int
    bytes_read: int
    earlier: int
    manifests: int
    tags: int
    drafts: int
    findings: tuple[Finding, ...]

    @property
    def lost(self) -> tuple[Finding, ...]:
        """The findings that could not be healed."""
        return tuple(one for one in self.findings if one.fate in {RepairOutcome.LOST, RepairOutcome.KEPT})

    @property
    def kept(self) -> tuple[Finding, ...]:
        """Those of `lost` that were sent again to a registry, which keeps what it has."""
        return tuple(one for one in self.findings if one.fate is RepairOutcome.KEPT)

    def json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "mirror": self.mirror,
            "blobs": self.blobs,
            "bytes_read": self.bytes_read,
            "blobs_read_earlier": self.earlier,
            "manifests": self.manifests,
            "tags": self.tags,
            "drafts_removed": self.drafts,
            "findings": [one.json() for one in self.findings],
            "whole": not self.findings,
            "healed": not self.lost,
        }
