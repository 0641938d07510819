"""Images as documents and archives, without anything else of the machine."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId, canonical_json
from pipeline.errors import VerificationError
from pipeline.oci import (
    blob_path,
    make_image,
    media_types,
    parse_image,
    timestamp,
    validate_layout,
    write_archive,
    write_layout,
)
from pipeline.store import Store
from tests.support.tiny_image import CONFIG, fake_layer, tar, tiny


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

    @pytest.mark.parametrize("kind", ["oci", "docker"])
    def test_a_folder_is_not_replaced_and_is_named(self, layout: Path, tmp_path: Path, kind: str) -> None:
        """It may be the layout of a product that is called `tiny.oci.tar`."""
        target = tmp_path / f"tiny.{kind}.tar"
        target.mkdir()
        with pytest.raises(IsADirectoryError) as caught:
            write_archive(layout, target, kind)  # type: ignore[arg-type]
        assert caught.value.filename == str(target)
        assert sorted(path.name for path in tmp_path.iterdir() if "tar" in path.name) == [target.name]

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
