"""Images of a few bytes, put into mirrors; and manifests that speak of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

from pipeline.digest import Digest, canonical_json
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
from pipeline.mirror.gate import Cleared
from pipeline.mirror.protocol import Repository
from pipeline.mirror.references import references
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.oci import make_image, media_types
from pipeline.oci.image_manifest import descriptor_json, platform_json
from pipeline.store import Store
from tests.support.tested_images import stand_in
from tests.support.tiny_image import CONFIG, layer

EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)


def image(store: Store, number: int, padding: int = 0) -> Image:
    """One of many images: all share a layer, and each has one of its own."""
    layers = [
        layer(store, "base", {"etc": None, "etc/passwd": b"server:x:27:28::/:/bin/sh\n"}),
        layer(store, "product", {"srv": None, "srv/page": b"page %d\n" % number + bytes(padding)}),
    ]
    return make_image("tiny", f"{number}.0", CONFIG, layers)


def manifest(made: Image) -> Manifest:
    """An image's manifest."""
    return Manifest(media_types.MANIFEST, made.manifest_bytes)


def put(repository: Repository, store: Store, made: Image) -> Manifest:
    """Blobs, then the manifest."""
    for one in made.layers:
        repository.put_blob(one.blob, store.blob(one.blob.digest))
    repository.put_blob(made.config_descriptor, made.config_bytes)
    repository.put_manifest(manifest(made))
    return manifest(made)


def publish(repository: Repository, store: Store, made: Image, tag: str) -> Manifest:
    """An image, whose tag is moved from whatever it points to."""
    whole = put(repository, store, made)
    repository.point(tag, cleared(whole), repository.resolve(tag))
    return whole


def cleared(whole: Manifest, tags: tuple[str, ...] = ()) -> Cleared:
    """What stands for the gate's word in tests of mirrors."""
    return stand_in(whole, tags=tags)


def index(*made: Image) -> Manifest:
    """An index of images."""
    entries = [
        {**descriptor_json(one.manifest_descriptor), "platform": {**platform_json(one.config), "variant": f"v{number}"}}
        for number, one in enumerate(made)
    ]
    return Manifest(
        media_types.INDEX,
        canonical_json({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": entries}),
    )


def speaks_of(subject: Descriptor, text: str, artifact_type: str = "application/vnd.example.note") -> Manifest:
    """A manifest about another, to be attached; its blob is `EMPTY`."""
    return Manifest(
        media_types.MANIFEST,
        canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": media_types.MANIFEST,
                "artifactType": artifact_type,
                "config": descriptor_json(EMPTY),
                "layers": [descriptor_json(EMPTY)],
                "subject": descriptor_json(subject),
                "annotations": {"org.example.text": text},
            }
        ),
    )


def attach(
    repository: Repository, subject: Descriptor, text: str, artifact_type: str = "application/vnd.example.note"
) -> Manifest:
    """Attach a note."""
    repository.put_blob(EMPTY, b"{}")
    note = speaks_of(subject, text, artifact_type)
    repository.attach(note)
    return note


def ticking(start: float = 1_800_000_000.0) -> Callable[[], float]:
    """A clock that goes a second with each look."""
    seconds = itertools.count(start)
    return lambda: float(next(seconds))


def blobs_of(made: Image) -> set[Digest]:
    """Config and layers."""
    return {made.config_descriptor.digest, *(one.blob.digest for one in made.layers)}


def all_files(root: Path) -> dict[str, bytes | str]:
    """Every file's bytes and every link's text below a folder, but for locks and what is known to be whole."""
    return {
        path.relative_to(root).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if (path.is_file() or path.is_symlink()) and not {".lock", ".scrub"} & set(path.parts) and path.name != "_lock"
    }


def whole(mirror: DirectoryMirror) -> None:
    """Every tag's manifest, and all that it refers to, is there with the right bytes."""
    for name in mirror.repositories():
        repository = mirror.repository(name)
        for tag in repository.tags():
            manifest = repository.manifest(tag)
            assert manifest is not None, f"{name}:{tag} leads nowhere"
            todo = [manifest]
            while todo:
                one = todo.pop()
                said = references(one)
                for blob in said.blobs:
                    assert Digest.of(repository.read_blob(blob)) == blob.digest
                for entry in said.manifests:
                    inner = repository.manifest(entry.digest)
                    assert inner is not None
                    todo.append(inner)
        listed = json.loads((mirror.place.repositories / name / "_tags.json").read_bytes())
        assert listed == {"name": name, "tags": list(repository.tags())}
    assert json.loads((mirror.place.root / "catalog.json").read_bytes()) == {
        "repositories": list(mirror.repositories())
    }
