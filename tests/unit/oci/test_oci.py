"""Images as documents, layouts and archives, without anything else of the machine."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import shutil
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import clone
from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest, canonical_json
from pipeline.errors import UsageError, VerificationError
from pipeline.model.image import Image, Layer
from pipeline.oci import (
    blob_path,
    make_image,
    media_types,
    parse_image,
    read_layout,
    timestamp,
    validate_layout,
    write_archive,
    write_layout,
    writing_layout,
)
from pipeline.oci import image_layout as layout_module
from pipeline.store import Store
from tests.support.tiny_image import CONFIG, fake_layer, layer, tar, tiny


@pytest.fixture
def layout(store: Store, tmp_path: Path) -> Path:
    target = tmp_path / "out" / "tiny"
    write_layout(tiny(store), store=store, target=target)
    return target


def codes(path: Path) -> list[str]:
    return sorted(problem.code for problem in validate_layout(path))


def state(path: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(path)): (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in path.rglob("*")}


class TestDocuments:
    def test_times_are_rfc_3339_in_utc(self) -> None:
        assert timestamp(0) == "1970-01-01T00:00:00Z"
        assert timestamp(1_700_000_000) == "2023-11-14T22:13:20Z"

    def test_the_manifest_says_title_version_and_time_and_the_callers_annotations_win(self) -> None:
        def notes(reference: str, **annotations: str) -> dict[str, str]:
            image = make_image("tiny", reference, CONFIG, [], annotations)
            found: dict[str, str] = json.loads(image.manifest_bytes)["annotations"]
            return found

        assert notes("host:5000/tiny:1.0") == {
            media_types.TITLE: "tiny",
            media_types.VERSION: "1.0",
            media_types.CREATED: "2023-11-14T22:13:20Z",
        }
        assert notes("1.0")[media_types.VERSION] == "1.0"
        assert media_types.VERSION not in notes("host:5000/tiny")
        assert notes("1.0", **{media_types.VERSION: "2"})[media_types.VERSION] == "2"

    def test_ports_get_their_protocol(self) -> None:
        image = make_image("tiny", "1", replace(CONFIG, exposed_ports=("53/udp", "80")), [])
        assert set(json.loads(image.config_bytes)["config"]["ExposedPorts"]) == {"53/udp", "80/tcp"}

    def test_what_is_empty_is_not_in_the_config(self) -> None:
        image = make_image("tiny", "1", replace(CONFIG, labels=(), volumes=(), user=""), [])
        assert {"Labels", "Volumes", "User"}.isdisjoint(json.loads(image.config_bytes)["config"])

    def test_documents_read_back_as_the_same_image(self) -> None:
        image = make_image("tiny", "1.0", CONFIG, [fake_layer("base"), fake_layer("product")])
        known = replace(image, layers=tuple(replace(one, contents=()) for one in image.layers))
        assert parse_image("tiny", "1.0", image.manifest_bytes, image.config_bytes) == known

    @pytest.mark.parametrize(
        "change",
        [
            {"layers": None, "config": None},
            {"layers": {}},
            {"layers": [{"mediaType": 1}]},
            {"config": {"mediaType": "x", "digest": "md5:1", "size": 1}},
            {"config": {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": -1}},
        ],
    )
    def test_a_manifest_of_another_form_is_refused(self, change: dict[str, object]) -> None:
        image = make_image("tiny", "1.0", CONFIG, [fake_layer("base")])
        manifest = canonical_json(json.loads(image.manifest_bytes) | change)
        with pytest.raises(VerificationError):
            parse_image("tiny", "1.0", manifest, image.config_bytes)

    def test_layers_that_do_not_fit_the_config_are_refused(self) -> None:
        image = make_image("tiny", "1.0", CONFIG, [fake_layer("base")])
        manifest = json.loads(image.manifest_bytes)
        manifest["layers"] *= 2
        with pytest.raises(VerificationError, match="2 layers, the config 1"):
            parse_image("tiny", "1.0", canonical_json(manifest), image.config_bytes)


def _other(store: Store) -> Image:
    return make_image("tiny", "2.0", CONFIG, [layer(store, "only", {"x": b"y"})])


class TestLayout:
    @pytest.mark.parametrize("compression", list(Compression))
    def test_what_is_written_is_sound_and_reads_back(
        self, store: Store, tmp_path: Path, compression: Compression
    ) -> None:
        image = tiny(store, compression)
        write_layout(image, store=store, target=tmp_path / "out")
        assert validate_layout(tmp_path / "out") == ()
        assert read_layout(tmp_path / "out") == image

    def test_a_byte_written_into_a_layout_is_not_one_of_the_stores(self, store: Store, layout: Path) -> None:
        digest = tiny(store).layers[0].blob.digest
        assert not blob_path(layout, digest).samefile(store.blob(digest))
        blob_path(layout, digest).write_bytes(b"edited")
        assert store.sound(digest)
        write_layout(tiny(store), store=store, target=layout)
        assert validate_layout(layout) == ()

    def test_a_layer_that_an_older_relbuild_linked_is_made_the_layouts_own(self, store: Store, layout: Path) -> None:
        digest = tiny(store).layers[0].blob.digest
        blob_path(layout, digest).unlink()
        blob_path(layout, digest).hardlink_to(store.blob(digest))
        write_layout(tiny(store), store=store, target=layout)
        assert not blob_path(layout, digest).samefile(store.blob(digest))
        assert validate_layout(layout) == ()

    def test_layers_of_an_unchanged_image_are_not_read_again(
        self, store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(path: Path, digest: Digest) -> None:
            raise AssertionError(path)

        monkeypatch.setattr(layout_module, "stamp_of_whole", never)
        write_layout(tiny(store), store=store, target=layout)

    def test_the_same_image_is_not_touched(self, store: Store, layout: Path) -> None:
        before = state(layout)
        write_layout(tiny(store), store=store, target=layout)
        assert state(layout) == before

    def test_another_image_replaces_it_whole(self, store: Store, layout: Path) -> None:
        other = make_image("tiny", "2.0", CONFIG, [layer(store, "only", {"x": b"y"})])
        write_layout(other, store=store, target=layout)
        assert validate_layout(layout) == ()
        assert read_layout(layout) == other
        assert [path.name for path in layout.parent.iterdir()] == ["tiny"]

    def test_layers_that_stay_keep_their_files_and_are_not_read_again(
        self, store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = tiny(store)
        base = image.layers[0]
        before = blob_path(layout, base.blob.digest).stat().st_ino
        other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])

        def never(path: Path, digest: Digest) -> None:
            raise AssertionError(path)

        monkeypatch.setattr(layout_module, "stamp_of_whole", never)
        for _ in range(2):
            write_layout(other, store=store, target=layout)
            kept = blob_path(layout, base.blob.digest)
            assert (kept.stat().st_ino, kept.stat().st_nlink) == (before, 1)
            assert not kept.samefile(store.blob(base.blob.digest))
        assert validate_layout(layout) == ()
        assert read_layout(layout).layers[0].diff_id == base.diff_id

    def test_the_file_of_a_layer_that_stays_is_not_kept_when_it_was_edited(self, store: Store, layout: Path) -> None:
        base = tiny(store).layers[0]
        edited = blob_path(layout, base.blob.digest)
        data = bytearray(edited.read_bytes())
        data[-1] ^= 1
        edited.write_bytes(data)
        inode = edited.stat().st_ino
        other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])
        write_layout(other, store=store, target=layout)
        assert edited.stat().st_ino != inode
        assert validate_layout(layout) == ()

    def test_the_file_of_a_layer_that_stays_is_not_kept_where_a_copy_of_the_layout_shares_it(
        self, store: Store, layout: Path, tmp_path: Path
    ) -> None:
        base = tiny(store).layers[0]
        shared = blob_path(layout, base.blob.digest)
        (tmp_path / "copy").hardlink_to(shared)
        write_layout(tiny(store), store=store, target=layout)  # Records the file as it is now, with both names.
        other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])
        write_layout(other, store=store, target=layout)
        assert not (tmp_path / "copy").samefile(blob_path(layout, base.blob.digest))
        assert validate_layout(layout) == ()

    def test_layers_that_stay_are_copied_where_files_cannot_be_linked(
        self, store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(layout_module.os, "link", refused)
        base = tiny(store).layers[0]
        write_layout(make_image("tiny", "2.0", CONFIG, [base]), store=store, target=layout)
        assert validate_layout(layout) == ()

    def test_a_damaged_one_is_put_right(self, store: Store, layout: Path) -> None:
        image = tiny(store)
        damaged = blob_path(layout, image.layers[1].blob.digest)
        size = damaged.stat().st_size
        damaged.unlink()
        damaged.write_bytes(b"x" * size)
        write_layout(image, store=store, target=layout)
        assert validate_layout(layout) == ()

    def test_it_is_written_beside_the_block_and_put_in_place_at_its_end(self, store: Store, layout: Path) -> None:
        other = _other(store)
        with writing_layout(other, store=store, target=layout):
            assert read_layout(layout) != other
        assert read_layout(layout) == other and not validate_layout(layout)
        with writing_layout(other, store=store, target=layout):
            pass
        assert [path.name for path in layout.parent.iterdir() if path.name.startswith(".")] == []

    @pytest.mark.parametrize("error", [ValueError("its documents"), KeyboardInterrupt()])
    def test_an_error_in_the_block_leaves_the_former_one(
        self, error: BaseException, store: Store, layout: Path
    ) -> None:
        before = read_layout(layout)
        for made in (_other(store), before):
            with pytest.raises(type(error)), writing_layout(made, store=store, target=layout):
                raise error
            assert read_layout(layout) == before and not validate_layout(layout)
        assert [path.name for path in layout.parent.iterdir() if path.name.startswith(".")] == []

    @pytest.mark.parametrize("way", ["kernel", "by hand"])
    def test_an_error_in_the_block_ends_the_copying_within_a_piece(
        self, store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        other = make_image("tiny", "2.0", CONFIG, [layer(store, "large", {"x": os.urandom(300_000)})])
        name = "copy_file_range" if way == "kernel" else "pread"
        real, begun, copied = getattr(os, name), threading.Event(), []

        def slow(*given: int, **more: int) -> object:
            copied.append(given)
            begun.set()
            time.sleep(0.005)
            return real(*given, **more)

        def cannot(*_: object, **__: object) -> int:
            raise OSError(errno.EXDEV, "another file system")

        monkeypatch.setattr(clone, "CLONE_PIECE", 1024)
        monkeypatch.setattr(fcntl, "ioctl", cannot)
        monkeypatch.setattr(os, "copy_file_range", cannot)
        monkeypatch.setattr(os, name, slow)
        with pytest.raises(KeyboardInterrupt), writing_layout(other, store=store, target=layout):
            assert begun.wait(30)
            raise KeyboardInterrupt
        assert 1 <= len(copied) < 100, "of 300 pieces"
        assert [path.name for path in layout.parent.iterdir()] == ["tiny"]

    def test_an_error_in_the_block_costs_no_copy_of_a_layer_that_stays(
        self, store: Store, layout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its file had another name in the draft meanwhile, so its change time is another."""
        base = tiny(store).layers[0]
        inode = blob_path(layout, base.blob.digest).stat().st_ino
        other = make_image("tiny", "2.0", CONFIG, [base, layer(store, "only", {"x": b"y"})])
        real, kept = layout_module._keep, threading.Event()

        def keep(*given: Any) -> bool:
            done = real(*given)
            kept.set()
            return done

        monkeypatch.setattr(layout_module, "_keep", keep)
        with pytest.raises(ValueError, match="its documents"), writing_layout(other, store=store, target=layout):
            assert kept.wait(30)
            raise ValueError("its documents")
        write_layout(other, store=store, target=layout)
        assert blob_path(layout, base.blob.digest).stat().st_ino == inode

    def test_what_cannot_be_copied_is_told_when_the_block_has_ended(self, store: Store, layout: Path) -> None:
        before, other, ended = read_layout(layout), _other(store), False
        store.blob(other.layers[0].blob.digest).unlink()
        with pytest.raises(VerificationError) as caught, writing_layout(other, store=store, target=layout):
            ended = True
        assert ended and caught.value.code == "blob-missing" and read_layout(layout) == before

    def test_without_its_layers_nothing_is_written(self, store: Store, layout: Path, tmp_path: Path) -> None:
        before = state(layout)
        other = make_image("tiny", "2.0", CONFIG, [fake_layer("missing")])
        for target in (layout, tmp_path / "new"):
            with pytest.raises(VerificationError, match="is missing in the store"):
                write_layout(other, store=store, target=target)
        assert state(layout) == before
        assert not (tmp_path / "new").exists()
        assert [path.name for path in layout.parent.iterdir()] == ["tiny"]

    def test_a_folder_that_is_something_else_is_left_alone(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis").write_text("years of work")
        with pytest.raises(UsageError) as raised:
            write_layout(tiny(store), store=store, target=tmp_path / "mine")
        assert raised.value.code == "not-a-layout"
        assert (tmp_path / "mine" / "thesis").read_text() == "years of work"

    def test_what_is_no_layout_is_named(self, tmp_path: Path) -> None:
        for path in (tmp_path / "nowhere", tmp_path):
            with pytest.raises(UsageError, match=r"index\.json"):
                read_layout(path)


class TestValidation:
    """Each damage is found and called by its name."""

    def damage(self, layout: Path, digest: Digest, data: bytes) -> None:
        path = blob_path(layout, digest)
        path.unlink()
        path.write_bytes(data)

    def rewrite(self, layout: Path, store: Store, change: dict[str, object]) -> Image:
        """Put an image with another config under a manifest that names it rightly."""
        image = tiny(store)
        config = canonical_json(json.loads(image.config_bytes) | change)
        manifest = json.loads(image.manifest_bytes)
        manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
        return self.put(layout, image, config, canonical_json(manifest))

    def put(self, layout: Path, image: Image, config: bytes, manifest: bytes) -> Image:
        for old, new in ((image.config_descriptor, config), (image.manifest_descriptor, manifest)):
            blob_path(layout, old.digest).unlink()
            blob_path(layout, Digest.of(new)).write_bytes(new)
        index = json.loads((layout / "index.json").read_bytes())
        index["manifests"][0] |= {"digest": str(Digest.of(manifest)), "size": len(manifest)}
        (layout / "index.json").write_bytes(canonical_json(index))
        return image

    def test_all_damaged_blobs_are_reported_at_once(self, store: Store, layout: Path) -> None:
        image = tiny(store)
        self.damage(layout, image.layers[0].blob.digest, b"x" * image.layers[0].blob.size)
        self.damage(layout, image.layers[1].blob.digest, b"short")
        self.damage(layout, image.config_descriptor.digest, b"y" * image.config_descriptor.size)
        assert codes(layout) == ["digest-mismatch"] * 3 + ["size-mismatch"]

    def test_missing_and_superfluous_blobs(self, store: Store, layout: Path) -> None:
        blob_path(layout, tiny(store).layers[0].blob.digest).unlink()
        blob_path(layout, Digest.of(b"stray")).write_bytes(b"stray")
        (layout / "blobs" / "sha256" / "notes.txt").write_text("x")
        assert codes(layout) == ["blob-missing", "blob-name", "blob-unreferenced"]

    def test_a_blob_that_is_a_link_out_of_the_layout(self, store: Store, layout: Path) -> None:
        path = blob_path(layout, tiny(store).layers[0].blob.digest)
        path.unlink()
        path.symlink_to(store.blob(tiny(store).layers[0].blob.digest))
        assert codes(layout) == ["blob-missing"]

    def test_a_tar_that_is_not_the_configs(self, store: Store, layout: Path) -> None:
        diff_ids = [str(DiffId.of(b"other")), str(tiny(store).layers[1].diff_id)]
        self.rewrite(layout, store, {"rootfs": {"type": "layers", "diff_ids": diff_ids}})
        assert codes(layout) == ["diff-id-mismatch"]

    def test_fewer_diff_ids_than_layers(self, store: Store, layout: Path) -> None:
        diff_ids = [str(tiny(store).layers[0].diff_id)]
        self.rewrite(layout, store, {"rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": []})
        assert codes(layout) == ["layers-mismatch"]

    def test_history_and_platform(self, store: Store, layout: Path) -> None:
        self.rewrite(layout, store, {"history": [{"created_by": "x"}], "architecture": "arm64"})
        assert codes(layout) == ["history-mismatch", "platform-mismatch"]

    def test_a_config_that_is_not_json(self, store: Store, layout: Path) -> None:
        image = tiny(store)
        manifest = json.loads(image.manifest_bytes)
        manifest["config"] |= {"digest": str(Digest.of(b"{]")), "size": 2}
        self.put(layout, image, b"{]", canonical_json(manifest))
        assert codes(layout) == ["document-malformed"]

    def test_media_types_of_layers_config_and_bytes(self, store: Store, layout: Path) -> None:
        image = tiny(store)
        manifest = json.loads(image.manifest_bytes)
        manifest["config"]["mediaType"] = "application/json"
        manifest["layers"][0]["mediaType"] = media_types.LAYERS[Compression.ZSTD]
        manifest["layers"][1]["mediaType"] = "application/x-tar"
        self.put(layout, image, image.config_bytes, canonical_json(manifest))
        assert codes(layout) == ["media-type"] * 3

    def test_a_layer_that_grows_beyond_what_the_manifest_says_is_not_decompressed_further(
        self, store: Store, layout: Path
    ) -> None:
        image = tiny(store)
        manifest = json.loads(image.manifest_bytes)
        manifest["layers"][0]["annotations"][media_types.LAYER_TAR_SIZE] = "100"
        self.put(layout, image, image.config_bytes, canonical_json(manifest))
        assert codes(layout) == ["stream-too-large"]

    def test_a_bomb_is_stopped(self, store: Store, tmp_path: Path) -> None:
        data = tar({"x": b"\0" * (30 << 20)})
        blob = gzip.compress(data, mtime=0)
        digest = store.put(blob)
        small = Layer("bomb", DiffId.of(data), replace(fake_layer("x").blob, digest=digest, size=len(blob)), 1 << 20)
        image = make_image("bomb", "1", CONFIG, [small])
        write_layout(image, store=store, target=tmp_path / "bomb")
        assert "stream-too-large" in codes(tmp_path / "bomb")

    @pytest.mark.parametrize(
        ("name", "content", "code"),
        [
            ("oci-layout", '{"imageLayoutVersion":"2.0.0"}', "layout-version"),
            ("oci-layout", "[]", "document-malformed"),
            ("index.json", '{"schemaVersion":1,"manifests":[]}', "no-image"),
            ("index.json", "null", "document-malformed"),
            ("index.json", '{"schemaVersion":2,"manifests":[{"digest":"sha256:zz"}]}', "document-malformed"),
        ],
    )
    def test_odd_documents(self, layout: Path, name: str, content: str, code: str) -> None:
        (layout / name).write_text(content)
        assert code in codes(layout)

    def test_missing_documents(self, layout: Path, tmp_path: Path) -> None:
        (layout / "index.json").unlink()
        assert codes(layout) == ["not-a-layout"]
        assert codes(tmp_path / "nowhere") == ["not-a-layout"]


class TestArchive:
    @pytest.mark.parametrize("kind", ["oci", "docker"])
    def test_the_same_layout_gives_the_same_bytes(self, layout: Path, tmp_path: Path, kind: str) -> None:
        other = tmp_path / "elsewhere"
        shutil.copytree(layout, other)
        for path in other.rglob("*"):
            path.touch()
            path.chmod(0o700)
        write_archive(layout, tmp_path / "a.tar", kind)  # type: ignore[arg-type]
        write_archive(other, tmp_path / "b.tar", kind)  # type: ignore[arg-type]
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()

    def test_an_oci_archive_is_the_layout(self, layout: Path, tmp_path: Path) -> None:
        write_archive(layout, tmp_path / "a.tar", "oci")
        with tarfile.open(tmp_path / "a.tar") as archive:
            archive.extractall(tmp_path / "unpacked")
        assert validate_layout(tmp_path / "unpacked") == ()

    @pytest.mark.parametrize("reference", ["1.0", "host:5000/other/name:2", ""])
    def test_a_docker_archive_holds_tars_by_their_diff_id(self, store: Store, tmp_path: Path, reference: str) -> None:
        image = tiny(store, Compression.ZSTD, reference)
        write_layout(image, store=store, target=tmp_path / "out")
        write_archive(tmp_path / "out", tmp_path / "a.tar", "docker")
        with tarfile.open(tmp_path / "a.tar") as archive:
            contents = {entry.name: (archive.extractfile(entry) or pytest.fail()).read() for entry in archive}
        (manifest,) = json.loads(contents["manifest.json"])
        assert manifest["RepoTags"] == [{"1.0": "tiny:1.0", "": "tiny:latest"}.get(reference, reference)]
        assert contents[manifest["Config"]] == image.config_bytes
        assert [DiffId.of(contents[name]) for name in manifest["Layers"]] == [one.diff_id for one in image.layers]

    def test_a_damaged_layer_leaves_no_archive(self, store: Store, layout: Path, tmp_path: Path) -> None:
        path = blob_path(layout, tiny(store).layers[1].blob.digest)
        path.unlink()
        path.write_bytes(gzip.compress(tar({"srv": None, "srv/page": b"b page\n"}), mtime=0))
        with pytest.raises(VerificationError):
            write_archive(layout, tmp_path / "archive" / "a.tar", "docker")
        assert list((tmp_path / "archive").iterdir()) == []
