"""Archives are read by libarchive: names byte for byte, nothing converted, and what is unclear is refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import archives
from pipeline.archives import ArchiveFormat, MalformedArchive, read_archive
from pipeline.errors import RelbuildError, VerificationError
from pipeline.layers.tar_format import (
    OWNER_LIMIT,
    TAR_END,
    read_tar,
    tar_header,
)
from pipeline.model.tree import Entry, EntryKind

ROOT = Path(__file__).parents[3]

NAMES = [
    "e\u0301t\u00e9",  # Decomposed and composed: libarchive would compose both.
    "\u212b",  # The Ångström sign, which composition makes another letter.
    b"gr\xfcn".decode(errors="surrogateescape"),
    "日本",
]


def pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def with_records(records: dict[str, str], content: bytes = b"", **attributes: int) -> bytes:
    """A tar of one file with pax records, made by Python."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("file")
        info.size, info.pax_headers = len(content), records
        for name, value in attributes.items():
            setattr(info, name, value)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def refused(data: bytes) -> str:
    """Why a tar is no layer."""
    with pytest.raises(RelbuildError) as caught:
        for member in read_tar(pieces(data), "it"):
            list(member.pieces())
    assert caught.value.code == "layer-malformed"
    return str(caught.value)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX", "de_DE.ISO-8859-1"])
def test_names_are_those_of_the_archive_whatever_the_locale_is(locale: str, tmp_path: Path) -> None:
    made = tmp_path / "it.tar"
    made.write_bytes(b"".join(tar_header(Entry(name, EntryKind.SYMLINK, link=name)) for name in NAMES) + TAR_END)
    script = (
        "import sys; from pipeline.layers.tar_format import read_tar\n"
        "for member in read_tar(iter([open(sys.argv[1], 'rb').read()]), 'it'):\n"
        "    assert member.entry.path == member.entry.link\n"
        "    print(ascii(member.entry.path))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, made],
        env={"PYTHONPATH": str(ROOT), "LC_ALL": locale, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == ([ascii(name) for name in NAMES], "")


def test_what_the_stream_raises_arrives_as_it_is() -> None:
    data = with_records({}, b"x" * 5000)

    def damaged() -> Iterator[bytes]:
        yield data[:1000]
        raise VerificationError("stream-damaged", "it is broken")

    with pytest.raises(VerificationError) as caught:
        for member in read_tar(damaged(), "it"):
            list(member.pieces())
    assert caught.value.code == "stream-damaged"
    with pytest.raises(VerificationError) as caught:
        list(read_tar(damaged(), "it"))
    assert caught.value.code == "stream-damaged"


def test_an_interruption_passes_through_the_library() -> None:
    def interrupted() -> Iterator[bytes]:
        yield with_records({}, b"x" * 5000)[:1000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(read_archive(interrupted(), ArchiveFormat.TAR))


def test_all_of_the_stream_is_read_also_what_follows_the_end() -> None:
    first, second = with_records({}, b"one"), with_records({}, b"two")
    left = pieces(first + second + b"garbage" * 999)
    assert [member.entry.size for member in read_tar(left, "it")] == [3]
    assert not list(left)


def test_an_empty_stream_has_no_entries() -> None:
    assert not list(read_tar(iter(()), "it"))
    assert not list(read_tar(iter([TAR_END]), "it"))


def test_content_outlives_the_member() -> None:
    data = b"".join(with_records({}, bytes([65 + n]) * 3000)[: 512 + 3072] for n in range(5)) + TAR_END
    kept = [piece for member in read_tar(pieces(data, 1300), "it") for piece in member.pieces()]
    assert b"".join(map(bytes, kept)) == b"".join(bytes([65 + n]) * 3000 for n in range(5))


def test_a_reader_that_is_left_in_the_middle_lets_go() -> None:
    reading = read_tar(pieces(with_records({}, b"x" * 9000)), "it")
    member = next(reading)
    next(iter(member.pieces()))
    reading.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax"])
def test_a_sparse_file_is_refused_in_a_layer_and_read_elsewhere(form: str, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.write(b"begin")
        file.seek(8 << 20)
        file.write(b"end")
    made = subprocess.run(
        ["tar", "-c", "-S", *f"--format={form}".split(), "-C", tmp_path, "holes"], capture_output=True, check=True
    ).stdout
    assert len(made) < 100_000
    assert "sparse" in refused(made)
    (member,) = (
        (found.header, [(at, bytes(block).strip(b"\0")) for at, block in found.blocks()])
        for found in read_archive(iter([made]), ArchiveFormat.TAR)
    )
    assert (member[0].path, member[0].size, member[0].sparse) == (b"holes", (8 << 20) + 3, True)
    assert [block for block in member[1] if block[1]] == [(0, b"begin"), (8 << 20, b"end")]


def test_a_size_that_the_content_does_not_have_is_refused() -> None:
    assert "does not have the 1099511627776 bytes" in refused(
        with_records({"SCHILY.realsize": str(1 << 40)}, b"x" * 700)
    )


def test_an_access_control_list_is_refused() -> None:
    # It would change the mode that image tools read.
    records = {"SCHILY.acl.access": "user::rwx\nuser:27:rwx\ngroup::r-x\nmask::rwx\nother::rwx\n"}
    assert "access control list" in refused(with_records(records))


def test_owners_have_32_bits() -> None:
    (member,) = read_tar(pieces(with_records({}, uid=OWNER_LIMIT, gid=1 << 21)), "it")
    assert (member.entry.uid, member.entry.gid) == (OWNER_LIMIT, 1 << 21)
    for wrong in ({"uid": OWNER_LIMIT + 1}, {"gid": 1 << 40}):
        assert "invalid owner" in refused(with_records({}, **wrong))
    assert refused(with_records({"uid": "-1"}))  # Newer libraries see by themselves that it is none.


def test_a_mode_has_the_bits_of_a_mode() -> None:
    block = bytearray(with_records({})[:512])
    block[100:108], block[148:156] = b"\xff" * 8, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (member,) = read_tar(pieces(bytes(block) + TAR_END), "it")
    assert (member.entry.kind, member.entry.mode) == (EntryKind.FILE, 0o7777)


def test_times_are_whole_seconds() -> None:
    (member,) = read_tar(pieces(with_records({"mtime": "1234567890.987654321"})), "it")
    assert member.entry.mtime == 1234567890


def test_attributes_are_read_in_both_of_their_forms() -> None:
    records = {"LIBARCHIVE.xattr.user.a": "AAE", "SCHILY.xattr.user.b": "it"}
    (member,) = read_tar(pieces(with_records(records)), "it")
    assert member.entry.xattrs == (("user.a", b"\0\1"), ("user.b", b"it"))
    assert "twice" in refused(with_records({"LIBARCHIVE.xattr.user.a": "AAE", "SCHILY.xattr.user.a": "it"}))


def test_headers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_records({"SCHILY.xattr.user.a": "x" * 200_000})
    assert len(list(read_tar(pieces(data), "it"))) == 1
    monkeypatch.setattr(archives, "ARCHIVE_HEADER_LIMIT", 1 << 17)
    with pytest.raises(MalformedArchive, match="headers"):
        list(read_archive(pieces(data), ArchiveFormat.TAR))
    # What a member that is not read holds is no header.
    assert len(list(read_tar(pieces(with_records({}, b"x" * 900_000)), "it"))) == 1


def test_only_the_format_that_is_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"x" * 4000)
    made = subprocess.run(["cpio", "-o", "-H", "newc", "-D", tmp_path], input=b"it\n", capture_output=True, check=True)
    assert [member.header.path for member in read_archive(pieces(made.stdout), ArchiveFormat.CPIO)] == [b"it"]
    with pytest.raises(MalformedArchive):
        list(read_archive(pieces(made.stdout), ArchiveFormat.TAR))
    packed = subprocess.run(["gzip"], input=with_records({}), capture_output=True, check=True).stdout
    with pytest.raises(MalformedArchive):
        list(read_archive(pieces(packed), ArchiveFormat.TAR))


def _python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_without_the_library_is_told_what_to_install() -> None:
    script = (
        "from pipeline.errors import EnvironmentLacking\n"
        "from pipeline.layers.tar_format import TAR_END, read_tar\n"
        "from pipeline.sandbox.host_check import _archives, _tried\n"
        "print(_tried('libarchive', _archives, 'reading layers'))\n"
        "try: list(read_tar(iter([TAR_END]), 'it'))\n"
        "except EnvironmentLacking as error: print(error)"
    )
    finding, error, *_ = _python(script, LIBARCHIVE="/nonexistent/libarchive.so").stdout.splitlines()
    assert "ok=False" in finding and "libarchive13" in finding
    assert "[library-missing]" in error


def test_the_library_is_loaded_only_when_an_archive_is_read() -> None:
    done = _python(
        "import sys, pipeline.cli.main, pipeline.build, pipeline.layers\n"
        "print([name for name in sys.modules if name.startswith('libarchive')])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
