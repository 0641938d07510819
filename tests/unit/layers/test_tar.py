"""Tar: what is written is read back, by us, by Python and by GNU tar, and is the smallest form that says it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RelbuildError
from pipeline.layers.tar_format import (
    TAR_BLOCK,
    TAR_END,
    padding,
    read_tar,
    tar_header,
)
from pipeline.model.tree import Entry, EntryKind
from tests.support.examples import examples

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(name.encode()) <= 255
)
paths = st.lists(names, min_size=1, max_size=6).map("/".join)
numbers = st.integers(0, 2**31) | st.integers(0, 9)
xattrs = st.dictionaries(
    st.sampled_from(["security.capability", "user.a", "user.größe"]), st.binary(max_size=40), max_size=3
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, bytes]:
    kind = draw(
        st.sampled_from(
            [
                EntryKind.FILE,
                EntryKind.DIRECTORY,
                EntryKind.SYMLINK,
                EntryKind.HARDLINK,
                EntryKind.FIFO,
                EntryKind.CHARACTER,
            ]
        )
    )
    content = draw(st.binary(max_size=1500)) if kind is EntryKind.FILE else b""
    return (
        Entry(
            path=draw(paths),
            kind=kind,
            mode=draw(st.integers(0, 0o7777)),
            uid=draw(numbers),
            gid=draw(numbers),
            mtime=draw(st.integers(-(2**40), 2**40)),
            size=len(content),
            link=draw(paths) if kind in (EntryKind.SYMLINK, EntryKind.HARDLINK) else "",
            xattrs=draw(xattrs),
            device=(draw(st.integers(0, 4095)), draw(st.integers(0, 9999))) if kind is EntryKind.CHARACTER else (0, 0),
        ),
        content,
    )


def written(items: Sequence[tuple[Entry, bytes]]) -> bytes:
    return b"".join(tar_header(entry) + content + padding(len(content)) for entry, content in items) + TAR_END


def read(data: bytes, size: int = 1000, form: type[bytes | bytearray] = bytes) -> list[tuple[Entry, bytes]]:
    pieces = (form(data[at : at + size]) for at in range(0, len(data), size))
    return [(member.entry, b"".join(map(bytes, member.pieces()))) for member in read_tar(pieces, "it")]


@settings(max_examples=examples(300))
@given(
    st.lists(entries(), max_size=4), st.sampled_from([1, 511, 512, 4096, 1 << 20]), st.sampled_from([bytes, bytearray])
)
def test_what_is_written_is_read_back(
    items: list[tuple[Entry, bytes]], size: int, form: type[bytes | bytearray]
) -> None:
    assert read(written(items), size, form) == items


@settings(max_examples=examples(200))
@given(st.lists(entries(), max_size=4))
def test_python_reads_what_is_written(items: list[tuple[Entry, bytes]]) -> None:
    with tarfile.open(fileobj=io.BytesIO(written(items))) as tar:
        found = tar.getmembers()
    assert [(m.name, m.mode, m.uid, m.gid, int(m.mtime), m.size, m.linkname) for m in found] == [
        (e.path, e.mode, e.uid, e.gid, e.mtime, e.size, e.link) for e, _ in items
    ]


def test_gnu_tar_reads_what_is_written(tmp_path: Path) -> None:
    long = "/".join(["d" * 100] * 5)
    items = [
        (Entry("größe", EntryKind.DIRECTORY, mode=0o755, mtime=1), b""),
        (Entry("größe/a", EntryKind.FILE, mode=0o644, size=3, mtime=1), b"abc"),
        (Entry(long, EntryKind.FILE, mode=0o640, size=2, mtime=1), b"xy"),
        (Entry("link", EntryKind.SYMLINK, mode=0o777, link="t" * 300, mtime=1), b""),
        (Entry("hard", EntryKind.HARDLINK, link="größe/a", mode=0o644, mtime=1), b""),
    ]
    archive = tmp_path / "it.tar"
    archive.write_bytes(written(items))
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(["tar", "-xf", archive, "-C", out], capture_output=True, text=True, check=True)
    assert not done.stderr
    assert (out / long).read_bytes() == b"xy"
    assert (out / "hard").samefile(out / "größe/a")
    assert str((out / "link").readlink()) == "t" * 300


@pytest.mark.parametrize(
    ("form", "options"), [("ustar", ()), ("pax", ()), ("gnu", ()), ("pax", ("--xattrs", "--numeric-owner"))]
)
def test_what_gnu_tar_writes_is_read(tmp_path: Path, form: str, options: tuple[str, ...]) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_bytes(b"content")
    (folder / "sub/link").symlink_to("file")
    if form != "ustar":
        (folder / ("n" * 200)).write_bytes(b"")
    data = subprocess.run(
        ["tar", "-c", f"--format={form}", *options, "-C", folder, "."], capture_output=True, check=True
    ).stdout
    found = {entry.path: (entry.kind, content) for entry, content in read(data)}
    expected = {
        "": (EntryKind.DIRECTORY, b""),
        "sub": (EntryKind.DIRECTORY, b""),
        "sub/file": (EntryKind.FILE, b"content"),
        "sub/link": (EntryKind.SYMLINK, b""),
    }
    assert found == expected | ({"n" * 200: (EntryKind.FILE, b"")} if form != "ustar" else {})


@given(entries())
def test_pax_records_stand_only_where_ustar_cannot_say_it(item: tuple[Entry, bytes]) -> None:
    plain = replace(item[0], path="a/b", link="c" if item[0].link else "", uid=7, gid=7, mtime=7, xattrs=())
    assert len(tar_header(plain)) == TAR_BLOCK


def test_a_name_of_ustars_longest_form_needs_no_record() -> None:
    path = "d" * 155 + "/" + "f" * 100
    assert len(tar_header(Entry(path, EntryKind.FILE))) == TAR_BLOCK
    assert len(tar_header(Entry(path + "f", EntryKind.FILE))) > TAR_BLOCK
    assert read(written([(Entry(path, EntryKind.FILE), b"")]))[0][0].path == path


def test_the_largest_sum_of_a_header_is_its_checksum() -> None:
    """Names of the most bytes, all of them the largest that ASCII has, and the largest numbers."""
    largest = "\x7f"
    entry = Entry(
        f"{largest * 155}/{largest * 100}",
        EntryKind.SYMLINK,
        mode=0o7777,
        uid=0o7777777,
        gid=0o7777777,
        mtime=0o77777777777,
        link=largest * 100,
        device=(0o7777777, 0o7777777),
    )
    header = tar_header(entry)
    assert len(header) == 512 and sum(header) > 1 << 15
    assert int(header[148:154], 8) == sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")


def test_a_file_of_more_than_8_gib_is_announced_as_such() -> None:
    header = tar_header(Entry("huge", EntryKind.FILE, size=9 << 30))
    assert tarfile.TarInfo.frombuf(header[-TAR_BLOCK:], "utf-8", "strict").size == 0
    assert f"size={9 << 30}\n".encode() in header


def test_names_that_are_no_utf8_survive() -> None:
    entry = Entry(b"gr\xfcn".decode(errors="surrogateescape"), EntryKind.FILE)
    assert read(written([(entry, b"")])) == [(entry, b"")]


def test_content_that_is_not_asked_for_is_skipped() -> None:
    items = [(Entry(name, EntryKind.FILE, size=2000), b"x" * 2000) for name in ("a", "b", "c")]
    seen = [member.entry.path for member in read_tar(iter([written(items)]), "it")]
    assert seen == ["a", "b", "c"]


def test_whiteouts_are_told_by_their_names() -> None:
    (member,) = read_tar(iter([written([(Entry("d/.wh.gone", EntryKind.FILE), b"")])]), "it")
    assert (member.entry.path, member.entry.kind) == ("d/gone", EntryKind.WHITEOUT)
    (member,) = read_tar(iter([written([(Entry("d/.wh..wh..opq", EntryKind.FILE), b"")])]), "it")
    assert (member.entry.path, member.entry.kind) == ("d", EntryKind.OPAQUE)


@settings(max_examples=examples(300))
@given(st.integers(0, 4 * TAR_BLOCK - 1), st.integers(1, 255))
def test_any_flipped_byte_of_a_header_is_read_or_refused_but_never_crashes(at: int, change: int) -> None:
    data = bytearray(written([(Entry("größe", EntryKind.FILE, size=3, mtime=1), b"abc")]))
    data[at] ^= change
    try:
        read(bytes(data))
    except RelbuildError as error:
        assert error.code in ("layer-malformed", "unsafe-path")
