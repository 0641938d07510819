"""Mirrors whose tags have moved, and what one does to them who cannot sign."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.address import Address
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_statements import anchor_manifest
from tests.support import mirror_images
from tests.support.published_images import ImagePublisher

DAY = 86_400.0
HOST = "registry.example/prod"


def opened(mirror: Path, maker: ImagePublisher, name: str = "small") -> DirectoryRepository:
    return open_directory(mirror, create=True, clock=maker.clock, host=HOST).repository(name)


def at(mirror: Path, reference: str = ":latest", name: str = "small") -> Address:
    return parse_address(f"dir:{mirror}/{name}{reference}")


def resolved(repository: Repository, tag: str) -> Digest:
    found = repository.resolve(tag)
    assert found is not None
    return found


def point(mirror: Path, tag: str, digest: Digest) -> None:
    """What one does who can write to the mirror, and cannot sign."""
    link = mirror / "repositories" / "small" / "_tags" / tag
    kind = next(iter((mirror / "repositories" / "small" / "_manifests").glob(f"{digest.hex}.*"))).name
    link.unlink(missing_ok=True)
    link.symlink_to(f"../_manifests/{kind}")


def published_files(mirror: Path) -> dict[str, bytes | str]:
    """What people see of a mirror: not what it notes of blobs that were read."""
    return {name: data for name, data in mirror_images.all_files(mirror).items() if not name.startswith(".scrub")}


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(RelbuildError) as caught:
        act()
    return caught.value.code


def replay(mirror: Path, maker: ImagePublisher) -> None:
    point(mirror, "latest", resolved(opened(mirror, maker), "1.0"))


def unsign(mirror: Path, maker: ImagePublisher) -> None:
    (
        mirror / "repositories" / "small" / "_tags" / f"sha256-{anchor_manifest(f'{HOST}/small', 'latest').digest.hex}"
    ).unlink()
