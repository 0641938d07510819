"""A layout as a mirror: what others wrote into it stays, and tags are moved exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.backends.layout.layout_mirror import LayoutMirror, is_layout, open_layout
from pipeline.mirror.protocol import Arrival, TagConflict
from pipeline.mirror.references import references, referrer_of, referrers_index
from pipeline.model.manifests import Manifest
from pipeline.oci import (
    blob_path,
    media_types,
    read_layout,
    validate_layout,
    write_layout,
)
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.patience import HUNG
from tests.support.tiny_image import tiny

ROOT = Path(__file__).parents[3]


@pytest.fixture
def mirror(tmp_path: Path) -> LayoutMirror:
    return open_layout(tmp_path / "layout", create=True, identity="images.example/tiny")


def listed(mirror: LayoutMirror) -> list[dict[str, object]]:
    value: list[dict[str, object]] = json.loads((mirror.path / "index.json").read_bytes())["manifests"]
    return value


def test_what_is_published_is_read_back(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    put = mirror_images.publish(repository, store, made, "1.0")
    note = mirror_images.attach(repository, put.descriptor, "first")
    assert repository.manifest("1.0") == repository.manifest(put.digest) == put
    assert repository.resolve("1.0") == put.digest
    assert repository.tags() == ("1.0",)
    assert repository.read_blob(made.config_descriptor) == made.config_bytes
    (referrer,) = repository.referrers(put.digest)
    assert (referrer.descriptor.digest, referrer.artifact_type) == (note.digest, "application/vnd.example.note")
    assert referrer.annotation("org.example.text") == "first"
    assert repository.identity == "images.example/tiny"
    assert repository.url == mirror.url == f"oci:{mirror.path}"
    assert mirror.repositories() == ("",)
    assert repository.manifest(made.config_descriptor.digest) is None
    assert repository.manifest("2.0") is repository.resolve("") is repository.manifest(Digest.of(b"?")) is None


def test_a_layout_of_one_image_is_a_mirror_and_stays_a_layout(tmp_path: Path, store: Store) -> None:
    made = tiny(store, reference="images.example/team/tiny:1.0")
    write_layout(made, store=store, target=tmp_path / "one")
    repository = open_layout(tmp_path / "one", create=False).repository("")
    assert repository.tags() == ("1.0",)
    assert repository.resolve("1.0") == made.digest
    repository.point("latest", mirror_images.cleared(mirror_images.manifest(made)), None)
    assert repository.tags() == ("1.0", "latest")
    repository.remove_tag("latest", made.digest)
    assert read_layout(tmp_path / "one") == made
    assert validate_layout(tmp_path / "one") == ()
    entry = json.loads((tmp_path / "one" / "index.json").read_bytes())["manifests"][0]
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}


def test_a_moved_tag_leaves_what_it_named_listed(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    one = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    two = mirror_images.publish(repository, store, mirror_images.image(store, 2), "1")
    repository.point("2", mirror_images.cleared(two), None)
    assert [(entry["digest"], entry.get("annotations", {})) for entry in listed(mirror)] == [
        (str(one.digest), {}),
        (str(two.digest), {media_types.REF_NAME: "1"}),
        (str(two.digest), {media_types.REF_NAME: "2"}),
    ]
    repository.point("1", mirror_images.cleared(one), two.digest)
    assert len(listed(mirror)) == 2
    assert repository.resolve("1") == one.digest
    assert repository.resolve("2") == two.digest


def test_what_others_say_in_the_index_is_kept(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    one = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    document = json.loads((mirror.path / "index.json").read_bytes())
    document["annotations"] = {"org.example.keeper": "somebody", "ratio": "1"}
    document["manifests"][0]["data"] = "e30="
    document["manifests"][0]["annotations"]["org.example.note"] = "kept"
    (mirror.path / "index.json").write_text(json.dumps(document))
    repository.point("latest", mirror_images.cleared(one), None)
    again = json.loads((mirror.path / "index.json").read_bytes())
    assert again["annotations"] == document["annotations"]
    assert document["manifests"][0] in again["manifests"]
    assert [entry["annotations"]["org.example.note"] for entry in again["manifests"]] == ["kept", "kept"]


def test_a_publication_that_changes_nothing_touches_nothing(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    made = mirror_images.image(store, 1)
    put = mirror_images.publish(repository, store, made, "1")
    mirror_images.attach(repository, put.descriptor, "first")

    def seen() -> dict[Path, tuple[int, int]]:
        found = ((path, path.lstat()) for path in mirror.path.rglob("*") if path.is_file())
        return {path: (one.st_ino, one.st_mtime_ns) for path, one in found}

    before = seen()
    assert repository.put_blob(made.layers[0].blob, store.blob(made.layers[0].blob.digest)) is Arrival.PRESENT
    mirror_images.publish(repository, store, made, "1")
    assert not repository.attach(mirror_images.speaks_of(put.descriptor, "first"))
    assert seen() == before


def test_referrers_are_found_in_a_fallback_index_too(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    repository.put_blob(mirror_images.EMPTY, b"{}")
    note = mirror_images.speaks_of(put.descriptor, "from a registry")
    repository.put_manifest(note)
    assert repository.referrers(put.digest) == ()
    wanted = mirror_images.attach(repository, put.descriptor, "attached")
    (attached,) = repository.referrers(put.digest)
    index = referrers_index([referrer_of(note)])
    repository.put_auxiliary(f"sha256-{put.digest.hex}", index, None)
    assert {one.descriptor.digest for one in repository.referrers(put.digest)} == {note.digest, wanted.digest}
    assert attached in repository.referrers(put.digest)


def test_tags_are_moved_only_from_what_they_are_taken_to_point_to(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    one = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    two = mirror_images.put(repository, store, mirror_images.image(store, 2))
    for expected in (None, two.digest):
        with pytest.raises(TagConflict) as caught:
            repository.point("1", mirror_images.cleared(two), expected)
        assert caught.value.found == one.digest
    with pytest.raises(ValueError, match="is a reserved tag"):
        repository.point("move.1.x", mirror_images.cleared(two), None)
    with pytest.raises(ValueError, match="not an auxiliary tag"):
        repository.put_auxiliary("1", two, one.digest)
    repository.remove_tag("1", one.digest)
    assert repository.tags() == ()
    assert repository.manifest(one.digest) == one


def test_nothing_incomplete_gets_a_name(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    made = mirror_images.image(store, 1)
    alone = mirror_images.manifest(made)
    for attempt in (lambda: repository.put_manifest(alone), lambda: repository.put_manifest(mirror_images.index(made))):
        with pytest.raises(VerificationError):
            attempt()
    with pytest.raises(VerificationError) as caught:
        repository.point("1", mirror_images.cleared(alone), None)
    assert caught.value.code == "manifest-missing"
    mislabelled = Manifest(media_types.INDEX, alone.data)
    with pytest.raises(VerificationError) as caught:
        repository.put_manifest(mislabelled)
    assert caught.value.code == "media-type-mismatch"
    assert listed(mirror) == []


def test_a_damaged_layout_is_told(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    place = blob_path(mirror.path, put.digest)
    place.unlink()
    place.write_bytes(put.data.replace(b"tiny", b"tinY"))
    with pytest.raises(VerificationError) as caught:
        repository.manifest("1")
    assert caught.value.code == "digest-mismatch"
    for text in ("", "[]", '{"manifests":7}', '{"manifests":[7]}', '{"manifests":[{}]}', '{"manifests":{"a":1}}'):
        (mirror.path / "index.json").write_text(text)
        with pytest.raises(VerificationError):
            repository.tags()


def test_a_removed_manifest_is_not_listed(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1")
    note = mirror_images.attach(repository, put.descriptor, "first")
    repository.remove_manifest(note.digest)
    assert repository.referrers(put.digest) == ()
    repository.remove_manifest(put.digest)
    assert listed(mirror) == []
    assert repository.manifest(put.digest) is None
    config = references(put).blobs[0]
    repository.remove_manifest(config.digest)  # Not a manifest: it stays.
    assert repository.has_blob(config.digest)


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("somebody's")
    for create in (True, False):
        with pytest.raises(UsageError) as caught:
            open_layout(tmp_path, create=create)
        assert caught.value.code == "not-a-layout"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(UsageError):
        open_layout(tmp_path / "missing", create=False)


def test_a_creation_that_was_killed_is_finished(tmp_path: Path) -> None:
    open_layout(tmp_path / "l", create=True)
    (tmp_path / "l" / "oci-layout").unlink()
    assert not is_layout(tmp_path / "l")
    assert open_layout(tmp_path / "l", create=True).repository("").identity == "localhost/l"
    assert is_layout(tmp_path / "l")


_MOVE = """
import sys
from pathlib import Path
from pipeline.mirror.backends.layout.layout_mirror import open_layout
from pipeline.mirror.protocol import TagConflict
from pipeline.store import Store
from tests.support import mirror_images
folder, which = Path(sys.argv[1]), int(sys.argv[2])
store = Store.open(folder / f"store{which}")
repository = open_layout(folder / "layout", create=False).repository("")
for number in range(which * 20, which * 20 + 20):
    put = mirror_images.put(repository, store, mirror_images.image(store, number))
    while True:
        seen = repository.resolve("1")
        try:
            repository.point("1", mirror_images.cleared(put), seen)
            print(seen, put.digest)
            break
        except TagConflict:
            pass
    mirror_images.attach(repository, put.descriptor, str(number))
"""


def test_two_processes_lose_nothing(mirror: LayoutMirror, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MOVE, str(tmp_path), str(which)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for which in range(2)
    ]
    outputs = [process.communicate(timeout=HUNG)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    moves = dict(line.split() for output in outputs for line in output.splitlines())
    at, steps = "None", 0
    while at in moves:
        at, steps = moves[at], steps + 1
    assert steps == len(moves) == 40
    repository = mirror.repository("")
    assert str(repository.resolve("1")) == at
    assert all(len(repository.referrers(Digest.parse(digest))) == 1 for digest in moves.values())


def test_an_index_of_others_without_a_media_type_is_read(mirror: LayoutMirror, store: Store) -> None:
    repository = mirror.repository("")
    made = mirror_images.image(store, 1)
    mirror_images.put(repository, store, made)
    value = json.loads(mirror_images.index(made).data)
    del value["mediaType"]
    plain = Manifest(media_types.INDEX, canonical_json(value))
    repository.put_manifest(plain)
    assert repository.manifest(plain.digest) == plain


def test_an_index_that_lists_nothing_is_an_empty_mirror(mirror: LayoutMirror) -> None:
    for text in ('{"schemaVersion":2}', '{"schemaVersion":2,"manifests":null}'):
        (mirror.path / "index.json").write_text(text)
        assert mirror.repository("").tags() == ()
        assert mirror.entries() == ()
