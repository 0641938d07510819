"""Files of an image, read from the blobs of its layers as overlayfs would show them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression, layer_codec
from pipeline.digest import DiffId
from pipeline.errors import RelbuildError
from pipeline.layers import ImageFiles
from pipeline.model.image import Descriptor, Image, Layer
from pipeline.oci import make_image, media_types
from pipeline.store import Store
from tests.support.tiny_image import CONFIG

Content = bytes | str | None
"""A file's bytes, a symlink's target, or None for a directory."""


def layer(store: Store, name: str, files: dict[str, Content], hard: dict[str, str] | None = None) -> Layer:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.mode, entry.uid = (0o755, 0) if content is None else (0o640, 27)
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
        for path, target in (hard or {}).items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.LNKTYPE, target
            archive.addfile(entry)
    data = out.getvalue()
    packed = layer_codec(Compression.GZIP).compress(data)
    blob = Descriptor(media_types.LAYERS[Compression.GZIP], store.put(packed), len(packed))
    return Layer(name, DiffId.of(data), blob, len(data))


@pytest.fixture
def image(store: Store) -> Image:
    lowest = layer(
        store,
        "lowest",
        {
            "bin": "usr/bin",
            "etc": None,
            "etc/app.conf": b"old",
            "etc/gone": b"x",
            "etc/hidden.d": None,
            "etc/hidden.d/a": b"a",
            "etc/replaced": None,
            "etc/replaced/a": b"a",
            "usr": None,
            "usr/bin": None,
            "usr/bin/app": b"#!",
        },
        {"usr/bin/also": "usr/bin/app"},
    )
    uppermost = layer(
        store,
        "uppermost",
        {
            "etc": None,
            "etc/.wh.gone": b"",
            "etc/app.conf": b"new",
            "etc/current": "/etc/../etc/app.conf",
            "etc/hidden.d": None,
            "etc/hidden.d/.wh..wh..opq": b"",
            "etc/hidden.d/b": b"b",
            "etc/loop": "loop",
            "etc/replaced": "hidden.d",
        },
    )
    return make_image("app", "1", CONFIG, [lowest, uppermost])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def files(image: Image, store: Store) -> ImageFiles:
    return ImageFiles(image, store)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/etc/app.conf", b"new"),
        ("etc/current", b"new"),
        ("/bin/app", b"#!"),
        ("/bin/also", b"#!"),
        ("/etc/replaced/b", b"b"),
        ("/../../etc/app.conf", b"new"),
    ],
)
def test_a_file_is_that_of_the_uppermost_layer_through_symlinks(files: ImageFiles, path: str, content: bytes) -> None:
    entry, data = files.read(path, 100)
    assert data == content
    assert entry.mode == 0o640 and entry.uid == 27


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/etc/gone", "image-file-missing"),
        ("/etc/hidden.d/a", "image-file-missing"),
        ("/etc/replaced/a", "image-file-missing"),
        ("/etc/loop", "image-file-missing"),
        ("/nowhere/at/all", "image-file-missing"),
        ("/etc", "image-file-irregular"),
        ("/", "image-file-irregular"),
    ],
)
def test_what_is_hidden_or_no_file_is_refused_by_name(files: ImageFiles, path: str, code: str) -> None:
    with pytest.raises(RelbuildError) as raised:
        files.read(path, 100)
    assert raised.value.code == code


def test_a_file_that_is_too_large_is_refused(files: ImageFiles) -> None:
    with pytest.raises(RelbuildError) as raised:
        files.read("/etc/app.conf", 2)
    assert raised.value.code == "image-file-too-large"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/", ["bin", "etc", "usr"]),
        ("/etc", ["app.conf", "current", "hidden.d", "loop", "replaced"]),
        ("/etc/hidden.d/", ["b"]),
        ("/bin", ["also", "app"]),
    ],
)
def test_a_folder_lists_what_is_seen_in_it(files: ImageFiles, path: str, names: list[str]) -> None:
    assert [entry.path.rpartition("/")[2] for entry in files.list_folder(path)] == names


def test_lower_layers_are_not_obtained_until_they_are_needed(image: Image, store: Store) -> None:
    asked: list[str] = []
    note: Callable[[Layer], None] = lambda layer: asked.append(layer.name)  # noqa: E731
    files = ImageFiles(image, store, note)
    files.read("/etc/app.conf", 100)
    assert asked == ["uppermost"]
    files.list_folder("/etc")
    assert asked == ["uppermost", "lowest"]


def test_a_layer_whose_bytes_are_damaged_is_not_read(image: Image, store: Store) -> None:
    path = store.blob(image.layers[1].blob.digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(RelbuildError):
        ImageFiles(image, store).read("/etc/app.conf", 100)


def test_a_path_that_is_twice_in_a_layer_is_refused(store: Store, image: Image) -> None:
    """Else the size of the last one would be compared with the limit, and the first one be read."""
    twice = layer(store, "twice", {"etc/large": b"x" * 1000, "./etc/large": b"small"})
    with pytest.raises(RelbuildError) as raised:
        ImageFiles(replace(image, layers=(twice,)), store).read("/etc/large", 100)
    assert (raised.value.code, "appears twice" in str(raised.value)) == ("layer-malformed", True)


def test_the_real_path_of_a_file_has_no_symlinks(store: Store, image: Image) -> None:
    linked = layer(store, "linked", {"etc/a": b"a", "etc/b": "a", "conf": "etc"}, hard={"etc/c": "etc/a"})
    files = ImageFiles(replace(image, layers=(linked,)), store)
    given = ("/etc//a", "/etc/b", "/conf/./a", "/etc/c")
    assert [files.real_path(path) for path in given] == ["/etc/a", "/etc/a", "/etc/a", "/etc/c"]
