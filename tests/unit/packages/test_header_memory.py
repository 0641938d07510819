"""What is kept of packages while an image is built: nothing twice, and nothing of rpm's."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.packages.cpio import CpioReader
from pipeline.packages.payload import read_payload
from pipeline.packages.rpm_header import read_header
from pipeline.packages.rpm_library import rpm

FILES = 50
SHARED = ("mode", "user", "group", "mtime", "rdev", "verify", "languages", "link")


class Header(dict[int, Any]):
    """A header that can be watched: rpm's own refuses weak references. Values are new objects at each reading."""

    def __missing__(self, tag: int) -> object:
        return None

    def __getitem__(self, tag: int) -> Any:
        found = super().__getitem__(tag)
        return [_again(one) for one in found] if isinstance(found, list) else found


def _again(value: str | int) -> str | int:
    return value.encode().decode() if isinstance(value, str) else int(str(value))


def header() -> Header:
    made = Header(
        {
            rpm.RPMTAG_NAME: "a",
            rpm.RPMTAG_VERSION: "1",
            rpm.RPMTAG_RELEASE: "1",
            rpm.RPMTAG_ARCH: "noarch",
            rpm.RPMTAG_BASENAMES: [f"file-{number}" for number in range(FILES)],
            rpm.RPMTAG_DIRNAMES: ["/usr/share/a/"],
            rpm.RPMTAG_DIRINDEXES: [0] * FILES,
            rpm.RPMTAG_FILEINODES: [*range(FILES)],
            rpm.RPMTAG_FILEMTIMES: [1_700_000_000] * FILES,
            rpm.RPMTAG_FILEMODES: [0o100644] * FILES,
            rpm.RPMTAG_FILEVERIFYFLAGS: [0xFFFF_FFFF] * FILES,
            rpm.RPMTAG_FILEUSERNAME: ["root-of-all"] * FILES,
            rpm.RPMTAG_FILEGROUPNAME: ["group-of-all"] * FILES,
            rpm.RPMTAG_FILELINKTOS: [""] * FILES,
        }
    )
    for tag in ("FILEFLAGS", "LONGFILESIZES", "FILERDEVS", "FILEDEVICES"):
        made[getattr(rpm, f"RPMTAG_{tag}")] = [0] * FILES
    for name in ("PROVIDE", "REQUIRE", "CONFLICT", "OBSOLETE", "RECOMMEND", "SUPPLEMENT"):
        made |= {getattr(rpm, f"RPMTAG_{name}{part}"): [] for part in ("NAME", "FLAGS", "VERSION")}
    return made


def test_what_files_of_a_package_have_in_common_is_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.packages.rpm_header.open_header", lambda path: header())
    files = read_header(tmp_path / "a.rpm", Digest.of(b"a")).files
    assert len(files) == FILES
    several = {name: len({id(getattr(file, name)) for file in files}) for name in SHARED}
    assert several == dict.fromkeys(SHARED, 1)


def test_the_header_that_rpm_read_is_freed_when_a_payload_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without a search for cycles: a build reads hundreds of payloads in a row."""
    known: list[weakref.ref[Header]] = []

    def opened(path: Path) -> Header:
        made = header()
        known.append(weakref.ref(made))
        return made

    path = tmp_path / "a.rpm"
    path.write_bytes(b"payload")
    monkeypatch.setattr("pipeline.packages.payload.open_header", opened)
    monkeypatch.setattr("pipeline.packages.rpm_header.open_header", opened)
    monkeypatch.setattr("pipeline.packages.payload.read_rpm_layout", lambda path: SimpleNamespace(payload=0))
    monkeypatch.setattr(CpioReader, "members", lambda self: iter(()))
    gc.disable()
    try:
        kept = read_header(path, Digest.of(b"a"))
        assert list(read_payload(path)) == []
        assert len(known) == 2
        assert len(kept.files) == FILES
        assert [one() for one in known] == [None, None]
    finally:
        gc.enable()
