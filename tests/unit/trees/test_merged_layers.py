"""Paths in the merged tree of unpacked layers are those that overlayfs would show."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.trees import MergedLayers, resolve_symlinks


def put(lower: Path, path: str, data: bytes) -> Path:
    (lower / path).parent.mkdir(parents=True, exist_ok=True)
    (lower / path).write_bytes(data)
    return lower


def link(lower: Path, path: str, target: str) -> Path:
    (lower / path).parent.mkdir(parents=True, exist_ok=True)
    (lower / path).symlink_to(target)
    return lower


def read(path: str, *lowers: Path) -> bytes | None:
    merged = MergedLayers(lowers)
    real = merged.real(path)
    return None if real is None else merged.read(real, 100)


def test_the_uppermost_file_counts(tmp_path: Path) -> None:
    lowers = put(tmp_path / "a", "d/f", b"low"), put(tmp_path / "b", "d/f", b"high"), put(tmp_path / "c", "d/g", b"g")
    assert (read("/d/f", *lowers), read("/d/g", *lowers), read("/d/h", *lowers)) == (b"high", b"g", None)
    assert read("/d", *lowers) is None and read("/", *lowers) is None
    assert MergedLayers(lowers).read("d/f", 2) == b"hi"


def test_a_symlinked_folder_may_be_in_another_layer(tmp_path: Path) -> None:
    low = put(tmp_path / "a", "opt/db/f", b"f")
    assert read("/var/lib/rpm/f", low, link(tmp_path / "b", "var/lib/rpm", "/opt/db")) == b"f"
    assert read("/var/lib/rpm/f", low, link(tmp_path / "c", "var/lib/rpm", "../../../../opt/./db")) == b"f"
    assert (
        read(
            "/var/lib/rpm/f",
            low,
            link(tmp_path / "d", "var", "/srv"),
            link(tmp_path / "e", "srv/lib", "../opt/x"),
            link(tmp_path / "f", "opt/x/rpm", "../db"),
        )
        == b"f"
    )
    assert read("/g", low, link(tmp_path / "g", "g", "opt/db/f")) == b"f"
    assert read("/loop", link(tmp_path / "h", "loop", "loop")) is None


def test_a_symlink_does_not_lead_out_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    for number, target in enumerate((str(tmp_path / "outside"), "../../outside", "../outside")):
        assert read("/d/f", link(tmp_path / str(number), "d/f", target)) is None


@pytest.mark.parametrize("above", ["var", "var/lib"])
def test_something_that_is_no_directory_hides_lower_ones(above: str, tmp_path: Path) -> None:
    low = put(tmp_path / "a", "var/lib/rpm/f", b"f")
    assert read("/var/lib/rpm/f", low, put(tmp_path / "b", above, b"")) is None
    assert read("/var/lib/rpm/f", low, link(tmp_path / "c", above, "/nowhere")) is None
    assert read("/var/lib/rpm/f", put(tmp_path / "d", above, b""), low) == b"f"


def test_a_path_that_no_file_can_have_has_none(tmp_path: Path) -> None:
    low = put(tmp_path / "a", "f", b"f")
    assert read("/" + "a" * 300, low) is None and read("/f/g", low) is None


def test_a_file_that_an_absolute_path_on_this_machine_could_not_name(tmp_path: Path) -> None:
    """PATH_MAX is of the path in the image; the folder of the store comes before it."""
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(19):
        os.mkdir("n" * 210, dir_fd=folder)
        inner = os.open("n" * 210, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    file = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.write(file, b"deep")
    os.close(file)
    os.close(folder)
    assert read("/" + f"{'n' * 210}/" * 19 + "f", tmp_path) == b"deep"


def test_a_path_too_deep_is_refused() -> None:
    with pytest.raises(BuildError) as caught:
        resolve_symlinks("/a" * 600, lambda _: None)
    assert caught.value.code == "too-deep"


def test_whiteouts_and_opaque_directories_hide_what_is_lower(tmp_path: Path) -> None:
    low, upper = put(tmp_path / "a", "d/e/f", b"f"), tmp_path / "b"
    (upper / "d/e").mkdir(parents=True)
    assert read("/d/e/f", low, upper) == b"f"
    if os.geteuid() == 0:
        os.mknod(upper / "d/e/f", stat.S_IFCHR, 0)
        assert read("/d/e/f", low, upper) is None
        (upper / "d/e/f").unlink()
    os.setxattr(upper / "d", "trusted.overlay.opaque" if os.geteuid() == 0 else "user.overlay.opaque", b"y")
    assert read("/d/e/f", low, upper) is None
    assert read("/d/e/f", low, upper, put(tmp_path / "c", "d/e/f", b"new")) == b"new"
