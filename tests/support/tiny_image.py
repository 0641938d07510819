"""Images of a few bytes for tests: layers made in memory, kept in a store."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from functools import lru_cache

from pipeline.compression import Compression, layer_codec
from pipeline.digest import DiffId, Digest
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.oci import make_image, media_types
from pipeline.store import Store

CONFIG = ImageConfig(
    architecture="amd64",
    created=1_700_000_000,
    entrypoint=("/usr/libexec/start",),
    command=("--flag",),
    user="server",
    working_directory="/srv",
    environment=("A=b", "C=d"),
    exposed_ports=("3306/tcp",),
    volumes=("/var/lib/server",),
    stop_signal="SIGQUIT",
    labels=(("a", "1"), ("b", "2")),
)


def tar(files: Mapping[str, bytes | None]) -> bytes:
    """A tar of files, and of directories where the content is None."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@lru_cache(64)
def _packed(files: tuple[tuple[str, bytes | None], ...], compression: Compression) -> tuple[bytes, bytes]:
    """A layer's tar and its blob: hundreds of tests want the same few."""
    data = tar(dict(files))
    return data, layer_codec(compression).compress(data)


def layer(
    store: Store, name: str, files: Mapping[str, bytes | None], compression: Compression = Compression.GZIP
) -> Layer:
    """A layer whose blob is in the store."""
    data, blob = _packed(tuple(files.items()), compression)
    digest = store.put(blob)
    descriptor = Descriptor(media_types.LAYERS[compression], digest, len(blob))
    return Layer(name, DiffId.of(data), descriptor, len(data))


def tiny(store: Store, compression: Compression = Compression.GZIP, reference: str = "1.0") -> Image:
    """An image of two layers."""
    layers = [
        layer(store, "base", {"etc": None, "etc/passwd": b"server:x:27:28::/:/bin/sh\n"}, compression),
        layer(store, "product", {"srv": None, "srv/page": b"a page\n"}, compression),
    ]
    return make_image("tiny", reference, CONFIG, layers)


def fake_layer(name: str) -> Layer:
    """A layer of which only the names matter."""
    return Layer(
        name,
        DiffId.of(f"tar of {name}".encode()),
        Descriptor(media_types.LAYERS[Compression.ZSTD], Digest.of(name.encode()), 123),
        1024,
        ("bash-5.2-1.x86_64",),
    )
