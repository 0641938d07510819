"""The bytes that a payload may have, from a header that whoever signed the package chose."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.packages.cpio import ArchivedFile
from pipeline.packages.payload import _archived, _most_bytes, read_payload
from pipeline.packages.rpm_header import file_names, hard_links, read_header
from pipeline.packages.rpm_library import rpm

TIB = 1 << 40
REGULAR, LINK, FOLDER = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755


def header(*files: tuple[str, int, int, int, str]) -> rpm.hdr:
    """A header of files: (path, mode, size, inode, target of a symbolic link)."""
    paths, modes, sizes, inodes, targets = map(list, zip(*files, strict=True))
    made = rpm.hdr()
    for tag, value in (("NAME", "a"), ("VERSION", "1"), ("RELEASE", "1"), ("ARCH", "noarch")):
        made[getattr(rpm, f"RPMTAG_{tag}")] = value
    made[rpm.RPMTAG_DIRNAMES], made[rpm.RPMTAG_DIRINDEXES] = ["/"], [0] * len(paths)
    made[rpm.RPMTAG_BASENAMES] = [path.removeprefix("/") for path in paths]
    for tag, values in (
        (rpm.RPMTAG_FILEMODES, modes),
        (rpm.RPMTAG_LONGFILESIZES, sizes),
        (rpm.RPMTAG_FILEINODES, inodes),
        (rpm.RPMTAG_FILELINKTOS, targets),
        (rpm.RPMTAG_FILEDEVICES, [1] * len(paths)),
        (rpm.RPMTAG_FILEFLAGS, [0] * len(paths)),
    ):
        made[tag] = values
    return made


@pytest.mark.parametrize("sizes", [(TIB, 0), (0, TIB)])
def test_names_of_one_file_that_have_different_sizes_are_refused(
    sizes: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever were believed, a limit on it would not hold the other."""
    lying = header(("/a", REGULAR, sizes[0], 1, ""), ("/b", REGULAR, sizes[1], 1, ""))
    with pytest.raises(ValueError, match="/b is /a"):
        hard_links(lying)
    for module in ("rpm_header", "payload"):
        monkeypatch.setattr(f"pipeline.packages.{module}.open_header", lambda path: lying)
    for read in (lambda path: read_header(path, Digest.of(b"a")), lambda path: list(read_payload(path))):
        with pytest.raises(VerificationError, match="different sizes") as caught:
            read(tmp_path / "a.rpm")
        assert caught.value.code == "package-damaged"


def test_the_content_of_one_file_counts_once_however_many_names_it_has() -> None:
    several = header(("/a", REGULAR, TIB, 1, ""), ("/b", REGULAR, TIB, 1, ""), ("/c", REGULAR, TIB, 1, ""))
    links = hard_links(several)
    assert links == {0: (0, 1, 2), 1: (0, 1, 2), 2: (0, 1, 2)}
    assert TIB <= _most_bytes(file_names(several), _archived(several, links)) < TIB + (1 << 20)


def test_a_symbolic_link_has_no_more_content_than_its_target() -> None:
    """It is decompressed only to be passed over, and no payload limit counts it."""
    lying = header(("/a", LINK, TIB, 1, "targét"), ("/b", FOLDER, TIB, 2, ""), ("/c", LINK, 3, 3, "abc"))
    archived = _archived(lying, hard_links(lying))
    assert archived == [
        ArchivedFile(frozenset({7, 0}), 7),
        ArchivedFile(frozenset({0}), 0),
        ArchivedFile(frozenset({3, 0}), 3),
    ]
    assert _most_bytes(file_names(lying), archived) < 1 << 20


@pytest.mark.parametrize("tag", [rpm.RPMTAG_FILEMODES, rpm.RPMTAG_FILEFLAGS, rpm.RPMTAG_FILEINODES])
@pytest.mark.parametrize("inodes", [(1, 2), (1, 1)])
def test_lists_of_unequal_lengths_are_refused_with_and_without_hard_links(
    tag: int, inodes: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = header(*((f"/{number}", REGULAR, 1, inode, "") for number, inode in enumerate(inodes)))
    longer = [*lying[tag], 3]
    del lying[tag]
    lying[tag] = longer
    monkeypatch.setattr("pipeline.packages.rpm_header.open_header", lambda path: lying)
    with pytest.raises(VerificationError, match="inconsistent: zip") as caught:
        read_header(tmp_path / "a.rpm", Digest.of(b"a"))
    assert caught.value.code == "package-damaged"
