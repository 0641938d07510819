"""What is in the place of a part, or of its origin, and is no file of its own is removed: nothing else is written."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import Download, fetch
from tests.support.misbehaving_server import CONTENT, DIGEST, NETWORK, MisbehavingServer

KEPT = CONTENT[:1000]


def link(path: Path, other: Path) -> None:
    path.symlink_to(other)


def dangling(path: Path, other: Path) -> None:
    path.symlink_to(other.with_name("nothing"))


def other_name(path: Path, other: Path) -> None:
    path.hardlink_to(other)


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def bound(path: Path, _: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # A socket's path has at most 107 bytes.
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def folder(path: Path, other: Path) -> None:
    (path / "in it").mkdir(parents=True)
    (path / "link").symlink_to(other)


ODD = pytest.mark.parametrize("make", [link, dangling, other_name, fifo, bound, folder])
SOURCES = pytest.mark.parametrize("source", ["file", "server"])


def get(store: Store, url: str) -> None:
    fetch(store, [Download((url,), DIGEST, len(CONTENT), "thing")], progress=QUIET, network=NETWORK)


def demand_whole(store: Store, other: Path, names: int = 1) -> None:
    status = store.blob(DIGEST).lstat()
    assert stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    assert store.blob(DIGEST).read_bytes() == CONTENT
    assert list((store.metadata / "partial").iterdir()) == []
    assert [*other.parent.iterdir()] == [other] and other.read_bytes() == KEPT
    assert (stat.S_IMODE(other.stat().st_mode), other.stat().st_nlink) == (0o600, names)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file with which a part begins as it should, and that is not to be touched."""
    path = tmp_path / "elsewhere" / "other"
    path.parent.mkdir()
    path.write_bytes(KEPT)
    path.chmod(0o600)
    return path


@ODD
@SOURCES
def test_a_download_begins_anew_and_leads_nowhere(
    make: Callable[[Path, Path], None], source: str, misbehaving: MisbehavingServer, store: Store, other: Path
) -> None:
    thing = other.parents[1] / "thing"
    thing.write_bytes(CONTENT)
    part = store.metadata / "partial" / DIGEST.hex
    part.parent.mkdir()
    make(part, other)
    get(store, thing.as_uri() if source == "file" else f"{misbehaving.url}/good")
    assert all("range" not in headers for _, headers in misbehaving.requests)
    demand_whole(store, other)


@ODD
def test_an_odd_origin_is_none(
    make: Callable[[Path, Path], None], misbehaving: MisbehavingServer, store: Store, other: Path
) -> None:
    """One is read for a part that is resumed, and written when the transfer begins."""
    part = store.metadata / "partial" / DIGEST.hex
    for resumed in (True, False):
        part.parent.mkdir(exist_ok=True)
        if resumed:
            part.write_bytes(CONTENT[:200_000])
        make(Path(f"{part}.origin"), other)
        get(store, f"{misbehaving.url}/good")
        demand_whole(store, other)
        store.blob(DIGEST).unlink()
    assert [headers.get("range") for _, headers in misbehaving.requests] == ["bytes=200000-", None]
    assert all("if-range" not in headers for _, headers in misbehaving.requests)


@SOURCES
def test_a_blob_can_be_read_by_all_whatever_the_umask(
    source: str, misbehaving: MisbehavingServer, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "thing").write_bytes(CONTENT)
    before = os.umask(0o077)
    try:
        get(store, (tmp_path / "thing").as_uri() if source == "file" else f"{misbehaving.url}/good")
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.blob(DIGEST).stat().st_mode) == 0o644
