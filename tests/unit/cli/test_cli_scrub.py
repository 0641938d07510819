"""`relbuild scrub`: what it says, and with which status it ends."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.store import Store
from tests.support import mirror_images
from tests.unit.mirror.directory.test_reuse import flip


@pytest.fixture
def mirror(tmp_path: Path) -> DirectoryMirror:
    made = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    store = Store.open(tmp_path / "store")
    mirror_images.publish(made.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    return made


def scrub(tmp_path: Path, *more: str, store: str = "store") -> tuple[int, str, str]:
    command = ["scrub", f"dir:{tmp_path}/mirror", "--store", str(tmp_path / store), "--progress", "none", *more]
    import_commands("scrub")
    done = CliRunner().invoke(app, command)
    return done.exit_code, done.stdout, done.stderr


def test_whole_is_0(mirror: DirectoryMirror, tmp_path: Path) -> None:
    status, out, err = scrub(tmp_path)
    assert (status, out) == (0, "")
    assert "3 blobs" in err
    assert "no damage found" in err


def test_healed_is_0_and_not_healed_is_5_each_told_by_name(mirror: DirectoryMirror, tmp_path: Path) -> None:
    blob = sorted(mirror.place.blobs.iterdir(), key=lambda path: path.stat().st_size)[0]
    layer = mirror_images.image(Store.open(tmp_path / "store"), 1).layers[0].blob.digest
    flip(mirror.place.blob(layer))
    status, _, err = scrub(tmp_path)
    assert status == 0
    assert f"blob {layer} of tiny was rotten: healed from the store" in err
    flip(mirror.place.blob(layer))
    status, out, err = scrub(tmp_path, "--json", store="empty")
    assert status == 5
    assert f"blob {layer} of tiny was rotten: not healed" in err
    assert "--from" in err
    value = json.loads(out)
    assert (value["whole"], value["healed"]) == (False, False)
    assert value["findings"][0]["name"] == str(layer)
    assert blob.exists()


def test_it_is_healed_from_another_mirror(mirror: DirectoryMirror, tmp_path: Path) -> None:
    other = open_directory(tmp_path / "other", create=True, clock=time.time)
    store = Store.open(tmp_path / "store")
    made = mirror_images.image(store, 1)
    mirror_images.publish(other.repository("tiny"), store, made, "1.0")
    flip(mirror.place.blob(made.layers[0].blob.digest))
    status, _, err = scrub(tmp_path, "--from", f"dir:{other.place.root}", store="empty")
    assert status == 0
    assert f"healed from dir:{other.place.root}/tiny" in err


@pytest.mark.parametrize("rate", ["50MB/s", "50M", "1GiB/s"])
def test_a_rate_is_read(mirror: DirectoryMirror, tmp_path: Path, rate: str) -> None:
    assert scrub(tmp_path, "--rate", rate)[0] == 0


@pytest.mark.parametrize("rate", ["50", "fast", "-1M", "50mbit"])
def test_a_rate_that_is_none_is_refused(mirror: DirectoryMirror, tmp_path: Path, rate: str) -> None:
    status, _, err = scrub(tmp_path, f"--rate={rate}")
    assert status == 2
    assert "rate" in err
