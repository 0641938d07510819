"""Names of manifest files in a directory mirror: the digest, and a word for the media type.

A web server tells the media type by the ending alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.mirror.references import MANIFEST_KINDS
from pipeline.model.image import Descriptor

_MEDIA_TYPES = MappingProxyType({kind: media_type for media_type, kind in MANIFEST_KINDS.items()})
_FILE = re.compile(r"([0-9a-f]{64})\.([a-z-]+)")


def manifest_file_names(digest: Digest) -> tuple[str, ...]:
    """Return the names that a manifest's file may have."""
    return tuple(f"{digest.hex}.{kind}" for kind in _MEDIA_TYPES)


def named_media_type(path: Path) -> str:
    """Return the media type of a manifest's file, which has one of these names."""
    return _MEDIA_TYPES[path.suffix[1:]]


def named_digest(name: str) -> Digest | None:
    """Return the digest in the name of a manifest's file; None if it is no such name."""
    found = _FILE.fullmatch(name)
    return Digest(found[1]) if found else None


def parse_manifest_path(path: Path) -> tuple[Digest, str] | None:
    """Return digest and media type from the name of a manifest's file; None if it is not one."""
    found = _FILE.fullmatch(path.name)
    if found is None or found[2] not in _MEDIA_TYPES:
        return None
    return Digest(found[1]), _MEDIA_TYPES[found[2]]


def manifest_file_name(descriptor: Descriptor) -> str:
    """Return the name of a manifest's file. Raises UsageError `media-type-unservable`."""
    if descriptor.media_type not in MANIFEST_KINDS:
        raise UsageError(
            "media-type-unservable",
            f"a directory mirror cannot serve {descriptor.digest} of type {descriptor.media_type[:100]}",
            hint="publish OCI images and indexes; convert others first",
        )
    return f"{descriptor.digest.hex}.{MANIFEST_KINDS[descriptor.media_type]}"
