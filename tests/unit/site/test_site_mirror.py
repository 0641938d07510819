"""Pages in a directory mirror: what keeps the mirror leaves them alone, and they leave the mirror alone."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.retention.quarantine import RemovalList
from pipeline.site import write_site
from pipeline.store import Store
from tests.support import mirror_images, nightly_examples


def held(mirror: DirectoryMirror) -> tuple[object, ...]:
    """What a mirror holds, but for when it came: what is restored is newer."""
    inventory = mirror.inventory()
    (repository,) = inventory.repositories
    return (
        repository.name,
        [(tag.name, tag.digest) for tag in repository.tags],
        [manifest.digest for manifest in repository.manifests],
        {blob.digest for blob in inventory.blobs},
    )


def test_publishing_pruning_and_restoring_pass_the_pages_by(tmp_path: Path) -> None:
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    store = Store.open(tmp_path / "store")
    repository = mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    one = mirror_images.publish(repository, store, made, "1")
    other = mirror_images.image(store, 2)
    mirror_images.publish(repository, store, other, "2")
    before, root = held(mirror), mirror.place.root
    write_site(nightly_examples.nights(1)[0], root / "nightly")
    pages = {path: path.read_bytes() for path in (root / "nightly").rglob("*") if path.is_file()}
    assert held(mirror) == before
    assert mirror.repositories() == ("tiny",)
    leaving = RemovalList(
        (("tiny", "1", one.digest),),
        (("tiny", one.digest),),
        tuple(mirror_images.blobs_of(made) - mirror_images.blobs_of(other)),
    )
    with mirror.pruning(1) as pruning:
        stamp = pruning.quarantine(leaving, time.time())
    mirror_images.whole(mirror)
    with mirror.pruning(1) as pruning:
        pruning.restore(stamp)
    assert held(open_directory(root, create=False, clock=time.time)) == before
    assert {path: path.read_bytes() for path in (root / "nightly").rglob("*") if path.is_file()} == pages
