"""A recipe's archive is put below its path and nowhere else, with the recipe's owners and modes."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import BuildError, RelbuildError
from pipeline.layers import archive_files
from pipeline.layers.archive_files import place_archive
from pipeline.layers.recipe_files import ImageArchive, ImageFile
from pipeline.model.recipe import FileKind
from pipeline.sandbox import RootFs

ROOT_ID = os.geteuid()
WHEN = 1_600_000_000
Member = tuple[str, bytes, str, bytes, int]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, RootFs]]:
    """An image's root with /usr and the link /lib, and how it is written."""
    folder = tmp_path / "root"
    (folder / "usr/lib").mkdir(parents=True)
    (folder / "lib").symlink_to("usr/lib")
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    yield folder, RootFs(handle, ROOT_ID)
    os.close(handle)


def put(
    root: tuple[Path, RootFs], data: bytes, *, path: str = "/opt/app", strip: int = 0, mode: int | None = None
) -> Path:
    """Place an archive; returns where."""
    archive = ImageArchive("app.tar", Digest.of(data), strip)
    file = ImageFile(path, FileKind.ARCHIVE, None, "", mode, "root", "root", "demo.yaml:9: files[0]", archive)
    folder, target = root
    target.make_directory(str(Path(path).parent))
    place_archive(file, io.BytesIO(data), target, uid=0, gid=0, mtime=WHEN)
    return folder / path.lstrip("/")


def refused(root: tuple[Path, RootFs], data: bytes, **options: int) -> BuildError:
    with pytest.raises(BuildError) as caught:
        put(root, data, **options)  # type: ignore[arg-type]
    problem = caught.value.problems[0]
    assert "'app.tar'" in problem.message and problem.place == "demo.yaml:9: files[0]"
    return caught.value


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> Member:
    return (name, tarfile.REGTYPE, "", content, mode)


def folder(name: str, mode: int = 0o755) -> Member:
    return (name, tarfile.DIRTYPE, "", b"", mode)


def link(name: str, to: str) -> Member:
    return (name, tarfile.SYMTYPE, to, b"", 0o777)


def hard(name: str, to: str) -> Member:
    return (name, tarfile.LNKTYPE, to, b"", 0o644)


def tar_of(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, target, content, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, target, len(content), mode
            info.uid, info.gid, info.mtime = 1000, 1000, 12
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def seen(place: Path) -> dict[str, str]:
    """What stands below a place: `mode content`, or `-> target`."""
    return {
        str(path.relative_to(place)): f"-> {path.readlink()}"
        if path.is_symlink()
        else f"{path.stat().st_mode & 0o7777:o} " + (path.read_text() if path.is_file() else "/")
        for path in sorted(place.rglob("*"))
    }


APP = (
    folder("app-1.2/"),
    file("app-1.2/bin/run", b"run", 0o4755),
    file("app-1.2/README", b"read", 0o666),
    link("app-1.2/bin/go", "run"),
    link("app-1.2/current", "bin/../bin"),
    hard("app-1.2/bin/also", "app-1.2/bin/run"),
)
PLACED = {
    "README": "644 read",
    "bin": "755 /",
    "bin/also": "755 run",
    "bin/go": "-> run",
    "bin/run": "755 run",
    "current": "-> bin/../bin",
}


def test_owners_modes_and_times_are_the_recipes(root: tuple[Path, RootFs]) -> None:
    place = put(root, tar_of(*APP), strip=1)
    assert seen(place) == PLACED
    run = place / "bin/run"
    assert (run.stat().st_uid, run.stat().st_gid, run.stat().st_mtime) == (ROOT_ID, ROOT_ID, WHEN)
    assert run.samefile(place / "bin/also") and run.stat().st_nlink == 2
    assert (place / "bin/go").lstat().st_mtime == WHEN


def test_a_mode_is_that_of_directories_and_programs(root: tuple[Path, RootFs]) -> None:
    place = put(root, tar_of(*APP), strip=1, mode=0o750)
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    assert {name: said.split()[0] for name, said in seen(place).items() if "->" not in said} == {
        "README": "640", "bin": "750", "bin/also": "750", "bin/run": "750",
    }  # fmt: skip


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd", "xz --format=lzma", "lz4", "compress", "lzip"])
def test_any_compression_is_read(packer: str, root: tuple[Path, RootFs]) -> None:
    command = packer.split()
    if shutil.which(command[0]) is None:
        made = BY_LIBARCHIVE[command[0]](tar_of(*APP))
    else:
        made = subprocess.run([*command, "-c"], input=tar_of(*APP), capture_output=True, check=True).stdout
    assert seen(put(root, made, strip=1)) == PLACED


def packed_by_libarchive(name: str) -> Callable[[bytes], bytes]:
    """A packer for machines that lack the program."""

    def pack(data: bytes) -> bytes:
        import libarchive

        out: list[bytes] = []
        with libarchive.custom_writer(lambda piece: out.append(bytes(piece)) or len(piece), "raw", name) as archive:
            archive.add_file_from_memory("data", len(data), data)
        return b"".join(out)

    return pack


BY_LIBARCHIVE = {name: packed_by_libarchive(name) for name in ("lz4", "compress", "lzip")}


@pytest.mark.parametrize("form", ["newc", "crc", "odc", "bin", "ustar"])
def test_cpio_is_read_with_its_hard_links(form: str, root: tuple[Path, RootFs], tmp_path: Path) -> None:
    tree = tmp_path / "app-1.2"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/run").write_bytes(b"run")
    (tree / "bin/run").chmod(0o755)
    (tree / "README").write_bytes(b"read")
    (tree / "bin/go").symlink_to("run")
    (tree / "current").symlink_to("bin/../bin")
    (tree / "bin/also").hardlink_to(tree / "bin/run")
    names = "\n".join(sorted(str(path.relative_to(tmp_path)) for path in [tree, *tree.rglob("*")]))
    made = subprocess.run(
        ["cpio", "-o", "-H", form, "--quiet", "-D", tmp_path], input=names.encode(), capture_output=True, check=True
    ).stdout
    place = put(root, made, strip=1)
    assert seen(place) == PLACED
    assert (place / "bin/run").samefile(place / "bin/also")


def zip_of(*members: Member) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, kind, target, content, mode in members:
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            form = {tarfile.REGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}[kind]
            info.create_system, info.external_attr = 3, (form | mode) << 16
            archive.writestr(info, target.encode() if kind == tarfile.SYMTYPE else content)
    return out.getvalue()


def test_zip_is_read_with_modes_and_links(root: tuple[Path, RootFs]) -> None:
    place = put(root, zip_of(*APP[:-1], file("app-1.2/größe", b"utf")), strip=1)
    expected = {**PLACED, "größe": "644 utf"}
    del expected["bin/also"]
    assert seen(place) == expected


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_zip_that_is_cut_off_is_refused(part: float, root: tuple[Path, RootFs]) -> None:
    data = zip_of(*APP[:-1])
    assert refused(root, data[: int(len(data) * part)], strip=1).code == "archive-malformed"


OUT = {
    "an absolute name": [file("/etc/evil")],
    "dots": [file("../evil")],
    "dots behind a directory": [file("a/../../evil")],
    "a name like a deletion": [file("a/.wh.b")],
    "an absolute link": [link("a", "/etc/passwd")],
    "an absolute link into its own place": [link("a", "/opt/app/b"), file("b")],
    "a link out": [link("a", "../x")],
    "a link out from within": [link("d/a", "../../x")],
    "a link out over a link": [link("a/b/c/l", "../../.."), link("t", "a/b/c/l/../..")],
    "links in a circle": [link("a", "b"), link("b", "a")],
    "through its own link": [folder("d"), link("a", "d"), file("a/evil")],
    "through its own file": [file("a"), file("a/evil")],
    "a hard link out": [hard("a", "/etc/passwd")],
    "a hard link upwards": [hard("a", "../../etc/passwd")],
    "a hard link to what is not in it": [hard("a", "b")],
    "a hard link to a link": [file("f"), link("s", "f"), hard("a", "s")],
    "a device": [("null", tarfile.CHRTYPE, "", b"", 0o666)],
    "a block device": [("sda", tarfile.BLKTYPE, "", b"", 0o666)],
    "a FIFO": [("pipe", tarfile.FIFOTYPE, "", b"", 0o666)],
    "a long component": [file("x" * 256)],
    "a long path": [file("/".join(["x" * 200] * 21))],
}  # fmt: skip


@pytest.mark.parametrize("name", OUT)
def test_what_leads_out_is_refused(name: str, root: tuple[Path, RootFs], tmp_path: Path) -> None:
    assert refused(root, tar_of(*OUT[name])).code == "archive-unsafe"
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("member", [link("a", "../../etc/passwd"), file("../evil")], ids=["link", "name"])
def test_what_leads_out_of_a_zip_is_refused(member: Member, root: tuple[Path, RootFs], tmp_path: Path) -> None:
    assert refused(root, zip_of(member)).code == "archive-unsafe"
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("target", ["/", "../..", "../../usr/lib", "/usr/lib"])
def test_a_link_of_the_image_below_the_path_is_not_followed(target: str, root: tuple[Path, RootFs]) -> None:
    place, _ = root
    (place / "opt/app").mkdir(parents=True)
    (place / "opt/app/sub").symlink_to(target)
    assert refused(root, tar_of(file("sub/evil"))).code == "archive-unsafe"
    assert refused(root, tar_of(folder("sub"), file("sub/evil"))).code == "archive-unsafe"
    assert not list(place.rglob("evil*"))


def test_links_on_the_way_to_the_path_are_the_images(root: tuple[Path, RootFs]) -> None:
    put(root, tar_of(file("a/b")), path="/lib/app")
    assert (root[0] / "usr/lib/app/a/b").is_file() and (root[0] / "lib").is_symlink()


def test_what_is_there_keeps_its_mode_and_files_are_replaced(root: tuple[Path, RootFs]) -> None:
    there = root[0] / "opt/app/etc"
    there.mkdir(parents=True)
    there.chmod(0o700)
    (there / "conf").write_text("old")
    (there / "other").write_text("kept")
    assert seen(put(root, tar_of(folder("etc", 0o777), file("etc/conf", b"new")))) == {
        "etc": "700 /", "etc/conf": "644 new", "etc/other": "644 kept",
    }  # fmt: skip


def test_a_directory_of_the_image_is_not_replaced_by_a_file(root: tuple[Path, RootFs]) -> None:
    (root[0] / "opt/app/a").mkdir(parents=True)
    for member in (file("a"), link("a", "b")):
        with pytest.raises(BuildError) as caught:
            put(root, tar_of(member))
        assert caught.value.code == "image-path-failed"


@pytest.mark.parametrize(
    "members", [[file("a"), file("a")], [link("a", "b"), file("a")], [file("a"), hard("b", "a"), file("b")]]
)
def test_what_is_in_it_twice_is_refused(members: Sequence[Member], root: tuple[Path, RootFs]) -> None:
    assert refused(root, tar_of(*members)).code == "archive-malformed"


def test_a_directory_may_be_in_it_twice(root: tuple[Path, RootFs]) -> None:
    assert seen(put(root, tar_of(folder("./"), folder("a"), file("a/b"), folder("a/")))) == {
        "a": "755 /",
        "a/b": "644 x",
    }


def test_stripping_drops_what_has_no_more_name(root: tuple[Path, RootFs]) -> None:
    assert seen(put(root, tar_of(file("top"), file("a/b/c"), hard("a/d/e", "a/b/c")), strip=2)) == {
        "c": "644 x", "e": "644 x",
    }  # fmt: skip
    error = refused(root, tar_of(*APP), strip=3)
    assert error.code == "archive-empty" and "tar -t" in (error.problems[0].hint or "")


@pytest.mark.parametrize("data", [b"", bytes(1024), gzip.compress(bytes(10240))], ids=["nothing", "end", "packed end"])
def test_an_archive_with_nothing_in_it_is_refused(data: bytes, root: tuple[Path, RootFs]) -> None:
    assert refused(root, data).code == "archive-empty"


@pytest.mark.parametrize(
    "data",
    [b"no archive" * 999, gzip.compress(b"no archive" * 999), tar_of(file("a", b"x" * 5000))[:3000],
     gzip.compress(tar_of(*APP))[:-200], b"\x28\xb5\x2f\xfd" + b"x" * 500, b"\x04\x22\x4d\x18" + b"x" * 500],
    ids=["text", "packed text", "cut off", "cut off when packed", "zstd", "lz4"],
)  # fmt: skip
def test_what_is_no_archive_is_refused(data: bytes, root: tuple[Path, RootFs]) -> None:
    assert refused(root, data).code == "archive-malformed"


def test_bombs_are_bounded(root: tuple[Path, RootFs], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive_files, "ARCHIVE_CONTENT_LIMIT", 1 << 20)
    monkeypatch.setattr(archive_files, "ARCHIVE_ENTRIES_LIMIT", 1000)
    many = tar_of(*(file(str(number), b"") for number in range(1001)))
    large = tar_of(file("a", bytes(600_000)), file("b", bytes(600_000)))
    with (tmp_path / "holes").open("wb") as made:
        made.truncate(1 << 40)
    sparse = subprocess.run(["tar", "-cS", "-C", tmp_path, "holes"], capture_output=True, check=True).stdout
    stated = bytearray(zip_of(file("a", bytes(2 << 20))))
    for data in (many, large, gzip.compress(large), sparse, bytes(stated), gzip.compress(bytes(3 << 20))):
        assert refused(root, data).code in ("archive-too-large", "archive-empty")
    assert not any((root[0] / "opt/app").rglob("b"))


def test_a_sparse_file_has_its_holes_filled(root: tuple[Path, RootFs], tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as made:
        made.write(b"begin")
        made.seek(3 << 20)
        made.write(b"end")
        made.truncate(5 << 20)
    data = subprocess.run(["tar", "-cS", "-C", tmp_path, "holes"], capture_output=True, check=True).stdout
    assert (put(root, data) / "holes").read_bytes() == (tmp_path / "holes").read_bytes()


def test_an_encrypted_zip_is_refused(root: tuple[Path, RootFs]) -> None:
    data = bytearray(zip_of(file("a", b"secret")))
    data[6] |= 1  # The flag in the local header, and in the directory at the end.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refused(root, bytes(data)).code == "archive-malformed"


def test_nothing_half_written_is_left_behind(root: tuple[Path, RootFs]) -> None:
    with pytest.raises(RelbuildError):
        put(root, tar_of(file("a", b"x" * 50_000))[:20_000])
    assert not list((root[0] / "opt/app").iterdir())
