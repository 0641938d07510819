"""An image of a mirror is brought here only once all that `verify` asks holds; its files are read as needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.main import run_command_line
from pipeline.model.image import Image
from pipeline.oci import choose_image, read_layout
from pipeline.prepare import BuildEnvironment
from pipeline.release import PulledImage, open_image_files, pull_image
from pipeline.store import Store
from tests.support.moved_tags import DAY, at, code_of, opened, replay, resolved
from tests.support.published_images import ImagePublisher, key


@pytest.fixture
def here(maker: ImagePublisher, tmp_path: Path) -> BuildEnvironment:
    """Another machine, with an empty store."""
    return replace(maker.build_env, store=Store.open(tmp_path / "here"))


def only(images: Sequence[Image]) -> Image:
    return choose_image(images, "", "reference")


def pull(mirror: Path, here: BuildEnvironment, reference: str = ":latest", signer: int = 0) -> PulledImage:
    return pull_image(at(mirror, reference), only, key(signer).public, here)


def test_it_is_verified_and_its_layers_are_here(mirror: Path, maker: ImagePublisher, here: BuildEnvironment) -> None:
    pulled = pull(mirror, here)
    assert pulled.image.digest == resolved(opened(mirror, maker), "latest")
    assert pulled.verified.tag is not None and pulled.verified.identities
    assert all(here.store.sound(layer.blob.digest) for layer in pulled.image.layers)


def test_of_an_index_only_the_image_that_is_chosen_is_fetched(
    mirror: Path, maker: ImagePublisher, here: BuildEnvironment
) -> None:
    images = [maker.image("2.0", architecture=name) for name in ("amd64", "arm64")]
    maker.publish(opened(mirror, maker), *images, tags=("2.0",))
    pulled = pull_image(at(mirror, ":2.0"), lambda found: choose_image(found, "aarch64", "it"), key().public, here)
    assert pulled.image.digest == images[1].digest
    assert here.store.has(images[1].layers[1].blob.digest)
    assert not here.store.has(images[0].layers[1].blob.digest)


def test_what_does_not_verify_is_not_fetched(mirror: Path, maker: ImagePublisher, here: BuildEnvironment) -> None:
    assert code_of(lambda: pull(mirror, here, signer=1)).startswith(("signature", "attestation", "key"))
    maker.clock.now += 60 * DAY
    assert code_of(lambda: pull(mirror, here)) == "tag-frozen"
    maker.clock.now -= 60 * DAY
    pull(mirror, replace(here, store=maker.store))
    replay(mirror, maker)
    assert code_of(lambda: pull(mirror, replace(here, store=maker.store))) == "tag-replayed"
    assert list((here.store.root / "blobs").iterdir()) == []


def test_a_layer_that_was_tampered_with_is_refused(mirror: Path, maker: ImagePublisher, here: BuildEnvironment) -> None:
    digest = maker.image("1.1").layers[1].blob.digest
    (blob,) = mirror.rglob(digest.hex)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(data)
    assert "blob" in code_of(lambda: pull(mirror, here)) or "digest" in code_of(lambda: pull(mirror, here))
    assert not here.store.has(digest)


def test_a_file_is_shown_with_no_more_layers_than_it_needs(
    mirror: Path, maker: ImagePublisher, here: BuildEnvironment
) -> None:
    with open_image_files(at(mirror), "", here) as files:
        assert files.read("/srv/page", 100)[1] == b"small 1.1 amd64\n"
        assert not here.store.has(maker.image("1.1").layers[0].blob.digest)
        assert [entry.path for entry in files.list_folder("/")] == ["etc", "srv"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> object:
    """Runs a command line; returns its exit status and what it printed for people."""
    public = tmp_path / "key.pub"
    public.write_bytes(key().public.pem)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "here"))
        monkeypatch.setattr("sys.argv", ["relbuild", *words, "--progress", "none"])
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err

    return run


def test_pull_writes_a_layout_and_says_what_was_verified(mirror: Path, tmp_path: Path, command: object) -> None:
    assert callable(command)
    words = ("--key", str(tmp_path / "key.pub"), "--output", str(tmp_path / "out"), "--arch", "x86_64")
    status, said = command("pull", str(at(mirror)), *words)
    assert status == 0, said
    assert "signatures and attestations are valid" in said and "tag 'latest' points here by signed move" in said
    image = read_layout(tmp_path / "out" / "small")
    assert image.config.architecture == "amd64"
    status, said = command("pull", str(at(mirror, ":stable")), *words)
    assert status == 2 and "layout-exists" in said
    assert read_layout(tmp_path / "out" / "small").digest == image.digest


def test_a_reference_is_run_only_with_a_key(mirror: Path, command: object) -> None:
    assert callable(command)
    status, said = command("run", str(at(mirror)))
    assert status == 2 and "key-missing" in said
