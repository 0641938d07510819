"""Opening below a folder: links that stay inside work, and nothing leads out, with openat2 and without."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

import pytest

from pipeline.beneath import (
    Folder,
    LinkRefused,
    NotRegular,
    PathEscape,
    TooLarge,
    path_resolution,
    read_file,
)
from pipeline.beneath import folder as folder_module


@pytest.fixture(params=["openat2", "by hand"])
def resolver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways; the first where this machine has it, which it says."""
    kernel = request.param == "openat2"
    if kernel:
        assert path_resolution.kernel_resolves(), (
            "this machine has no openat2: Linux 5.6 and a filter that admits it are needed"
        )
    monkeypatch.setattr(path_resolution, "kernel_resolves", lambda: kernel)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, resolver: str) -> Folder:
    """`given/` with a file, a folder and links, and `secret` beside it."""
    given = tmp_path / "given"
    (given / "deep" / "er").mkdir(parents=True)
    (given / "file").write_text("inside")
    (given / "deep" / "file").write_text("deep")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "given-too").mkdir()
    (tmp_path / "given-too" / "secret").write_text("secret")
    return Folder(given)


@pytest.mark.parametrize(
    ("link", "target", "content"),
    [
        ("plain", "file", b"inside"),
        ("dotted", "./deep/../file", b"inside"),
        ("deep/up", "../file", b"inside"),
        ("deep/er/up", "../../deep/file", b"deep"),
    ],
)
def test_links_that_stay_in_the_folder_are_followed(folder: Folder, link: str, target: str, content: bytes) -> None:
    (folder.path / link).symlink_to(target)
    assert folder.read(link, 100) == content and folder.has_file(link)


def test_links_to_links_and_to_folders_are_followed(folder: Folder) -> None:
    (folder.path / "data").symlink_to("deep")
    (folder.path / "one").symlink_to("data/file")
    (folder.path / "two").symlink_to("one")
    assert folder.read("two", 100) == b"deep" and folder.read("data/../file", 100) == b"inside"
    assert folder.has_folder("data") and not folder.has_file("data") and not folder.has_folder("two")
    os.close(folder.open_folder("data"))


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("link", "/etc/shadow"),
        ("link", "../secret"),
        ("deep/link", "../../secret"),
        ("link", "deep/../../secret"),
        ("link", "../given-too/secret"),
        ("link", "../given/file"),
        ("link", "/proc/self/environ"),
        ("link", "/proc/self/root/etc/shadow"),
        ("link", "../nothing-there"),
    ],
)
def test_a_link_that_leads_out_is_named_with_its_target(folder: Folder, link: str, target: str) -> None:
    (folder.path / link).symlink_to(target)
    for reading in (lambda: folder.read(link, 100), lambda: folder.has_file(link), lambda: folder.check(link)):
        with pytest.raises(PathEscape) as caught:
            reading()
        assert (caught.value.link, caught.value.target, caught.value.errno) == (link, target, errno.EXDEV)
        assert f"'{link}' leads to '{target}'" in str(caught.value) and caught.value.way_out


def test_a_link_in_the_middle_of_a_name_is_named(folder: Folder) -> None:
    (folder.path / "data").symlink_to("../given-too")
    (folder.path / "way").symlink_to("data/secret")
    for name in ("data/secret", "way"):
        with pytest.raises(PathEscape) as caught:
            folder.read(name, 100)
        assert (caught.value.link, caught.value.target) == ("data", "../given-too")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "deep/../../secret", "..", "/"])
def test_a_name_that_leads_out_is_refused(folder: Folder, name: str) -> None:
    with pytest.raises(PathEscape) as caught:
        folder.read(name, 100)
    assert caught.value.link == "" and f"'{name}' lies outside" in str(caught.value)


def test_what_is_not_there_is_missing_and_no_escape(folder: Folder) -> None:
    (folder.path / "dangling").symlink_to("nothing")
    for name in ("nothing", "deep/nothing", "dangling", "", "a\0b", "\ud800"):
        with pytest.raises(FileNotFoundError):
            folder.read(name, 100)
        assert not folder.has_file(name)
    for name in ("file/below", "file/"):
        with pytest.raises(NotADirectoryError):
            folder.read(name, 100)


def test_a_circle_of_links_ends(folder: Folder) -> None:
    (folder.path / "a").symlink_to("b")
    (folder.path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        folder.read("a", 100)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("kind", ["FIFO", "socket", "folder", "device"])
def test_only_regular_files_are_read_and_nothing_waits(folder: Folder, kind: str) -> None:
    place = folder.path / "odd"
    name = "odd"
    if kind == "FIFO":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "device":
        folder = Folder(Path("/dev"))
        name = "zero"
    else:
        here = socket.socket(socket.AF_UNIX)
        here.bind(os.path.relpath(place))
        here.close()
    with pytest.raises(NotRegular, match=f"a {kind}"):
        folder.read(name, 100)
    assert not folder.has_file(name)
    with pytest.raises(NotRegular, match=f"a {kind}"):
        read_file(folder.path / name, 100)


def test_a_file_that_is_too_large_or_grows_is_read_no_further(folder: Folder) -> None:
    assert folder.read("file", 6) == b"inside"
    with pytest.raises(TooLarge) as caught:
        folder.read("file", 5)
    assert caught.value.limit == 5 and caught.value.filename == str(folder.path / "file")
    with folder.open("file") as file, (folder.path / "file").open("a") as grown:
        grown.write(" and more")
        grown.flush()
        with pytest.raises(TooLarge):
            folder_module._bounded(file, Path("file"), 6)


def test_a_name_of_very_many_parts_ends(folder: Folder) -> None:
    with pytest.raises(OSError, match="too long"):
        folder.read("deep/../" * 1000 + "file", 100)


def test_a_file_named_by_a_person_may_be_a_link(folder: Folder) -> None:
    (folder.path / "link").symlink_to("../secret")
    assert read_file(folder.path / "link", 100) == b"secret"


def test_no_descriptor_is_left_open(folder: Folder) -> None:
    (folder.path / "out").symlink_to("../secret")
    (folder.path / "data").symlink_to("deep")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("file", "data/file", "out", "nothing", "data", "file/x", "data/../../x"):
        with contextlib.suppress(OSError):
            folder.read(name, 100)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_exchanged_while_it_is_opened_never_leads_out(folder: Folder) -> None:
    """A folder that is a link out of here every other moment: what is read is never the secret."""
    import threading

    stop = threading.Event()
    data = folder.path / "data"
    data.symlink_to("deep")
    (folder.path / "given").mkdir()

    def exchange() -> None:
        while not stop.is_set():
            for target in ("../given-too", "deep"):
                (folder.path / "next").symlink_to(target)
                (folder.path / "next").replace(data)

    other = threading.Thread(target=exchange)
    other.start()
    seen = set()
    try:
        for _ in range(500):
            for name in ("data/file", "data/secret"):
                with contextlib.suppress(OSError):
                    seen.add(folder.read(name, 100))
    finally:
        stop.set()
        other.join()
    assert seen <= {b"deep"}


def test_where_no_link_is_expected_none_is_followed(tmp_path: Path) -> None:
    (tmp_path / "inside" / "deep").mkdir(parents=True)
    (tmp_path / "inside" / "deep" / "file").write_bytes(b"whole")
    (tmp_path / "inside" / "link").symlink_to("deep/file")
    (tmp_path / "inside" / "way").symlink_to("deep")
    folder = Folder(tmp_path / "inside")
    with folder.open_without_links("deep/file") as file:
        assert file.read() == b"whole"
    for name in ("link", "way/file"):
        with folder.open(name) as file:
            assert file.read() == b"whole"
        with pytest.raises(LinkRefused):
            folder.open_without_links(name)
    with pytest.raises(PathEscape):
        folder.open_without_links("deep/../link")
    with pytest.raises(FileNotFoundError):
        folder.open_without_links("deep/none")
    with pytest.raises(NotRegular):
        folder.open_without_links("deep")
