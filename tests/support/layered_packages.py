"""Packages whose payloads are given as mappings, composed into layers, made and compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.layers import build_layers, segments
from pipeline.model.image import Layer
from pipeline.model.package import Nevra
from pipeline.model.tree import Entry, EntryKind
from pipeline.packages import PayloadFile
from pipeline.store import Store
from pipeline.trees import ComposedLayer, Part

ME, GROUP, TIME = os.getuid(), os.getgid(), 1_700_000_000
LARGE: Mapping[str, bytes | str | None] = {"usr/large": b"large" * 1000, "usr/dir": None, "usr/dir/deep": b"deep"}
FIRST: Mapping[str, bytes | str | None] = {
    "usr/tool": b"one",
    "usr/shared": None,
    "usr/shared/tool": b"tool",
    "usr/turns": b"a file",
    "usr/back": "tool",
    "usr/to": "tool",
}
SECOND: Mapping[str, bytes | str | None] = {
    "usr/tool": b"two",
    "usr/shared": None,
    "usr/shared/tool": b"tool",
    "usr/turns": "tool",
    "usr/back": b"a file now",
    "usr/grows": None,
    "usr/grows/new": b"new",
    "usr/to": "grows",
}
"""Nothing that `FIRST` has is missing, and directories are where they were."""

DROPPED: Mapping[str, Mapping[str, bytes | str | None]] = {
    "a file": {path: value for path, value in SECOND.items() if path != "usr/tool"},
    "a directory": {path: value for path, value in SECOND.items() if not path.startswith("usr/shared")},
    "a directory's last file": {path: value for path, value in SECOND.items() if path != "usr/shared/tool"},
    "a directory for a file": {**SECOND, "usr/tool": None, "usr/tool/new": b"new"},
    "a directory for a symlink": {**SECOND, "usr/to": None},
    "a file for a directory": {
        **{path: value for path, value in SECOND.items() if path != "usr/shared/tool"},
        "usr/shared": b"a file",
    },
}
"""Updates of `FIRST` that a tree over its own cannot show without hiding what layers below have."""

BELOW: Mapping[str, Mapping[str, bytes | str | None]] = {
    "files below": {"usr/shared": None, "usr/shared/base": b"base", "usr/shared/tool": b"moved", "usr/tool": b"moved"},
    "directories below": {"usr/tool": None, "usr/tool/base": b"base", "usr/to": None, "usr/to/base": b"base"},
}
"""Packages of layers below, with what those updates drop."""


class Packages:
    """Packages with files (bytes), directories (None) and symlinks (str), composed into layers."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.files: dict[Digest, list[bytes]] = {}
        self.read: list[Digest] = []
        monkeypatch.setattr(segments, "read_payload", self._payload)

    def _payload(self, rpm: Path) -> Iterator[PayloadFile]:
        self.read.append(Digest(rpm.name))
        for index, content in enumerate(self.files[Digest(rpm.name)]):
            yield PayloadFile((index,), len(content), lambda content=content: iter([content]), "")  # type: ignore[misc]

    def layer(self, time: int = TIME, **packages: Mapping[str, bytes | str | None]) -> ComposedLayer:
        folders = {"usr", *(path for files in packages.values() for path, value in files.items() if value is None)}
        parts = tuple(self._part(name, files) for name, files in packages.items())
        return ComposedLayer(
            "base",
            tuple(Entry(path, EntryKind.DIRECTORY, 0o755, ME, GROUP, mtime=time) for path in sorted(folders)),
            parts,
            tuple(str(part.nevra) for part in parts),
            time,
        )

    def _part(self, name: str, files: Mapping[str, bytes | str | None]) -> Part:
        checksum = self.store.put(repr((name, files)).encode())
        # As in a payload: in another order than that of the paths.
        contents = [(path, value) for path, value in sorted(files.items(), reverse=True) if isinstance(value, bytes)]
        self.files[checksum] = [value for _, value in contents]
        made = [
            (index, Entry(path, EntryKind.FILE, 0o640, ME, GROUP, mtime=TIME, size=len(value)))
            for index, (path, value) in enumerate(contents)
        ]
        made += [
            (100 + index, Entry(path, EntryKind.SYMLINK, 0o777, ME, GROUP, mtime=TIME, link=value))
            for index, (path, value) in enumerate(files.items())
            if isinstance(value, str)
        ]
        return Part(Nevra(name, 0, "1", "1", "noarch"), checksum, tuple(sorted(made, key=lambda one: one[1].path)))


def made(store: Store, composed: ComposedLayer) -> Layer:
    """The layer, built with its tree and confirmed."""
    (built,) = build_layers([composed], store=store, compression=Compression.GZIP, unpack=True)
    return built.layer


def copied(store: Store, layer: Layer, elsewhere: Path) -> Store:
    """A store that knows nothing but the layer's blob."""
    other = Store.open(elsewhere)
    with store.reading(layer.blob.digest) as file, other.writer() as blob:
        blob.write(file.read())
    return other
