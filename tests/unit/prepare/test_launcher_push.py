"""What a launcher that is a cluster gets from a build's environment: a way to push, and the variables of kubectl."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import sandbox
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.registry_fake import fake_registry
from tests.support.tiny_image import tiny


def test_an_image_is_pushed_whole_and_without_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(sandbox, "open_launcher", lambda *words, tell: given.extend(words))
    environment = {"HOME": str(tmp_path), "KUBECONFIG": "/k"}
    store = Store.open(tmp_path / "store")
    BuildEnvironment(store, QUIET, environment, time.time, launcher="kubernetes:h/n").launching()
    text, state, _, push, handed_on = given
    assert (text, state, handed_on) == ("kubernetes:h/n", store.sandbox, environment)
    image = tiny(store)
    with fake_registry(requires_content=True) as registry:
        push(image, f"registry+http://{registry.host}/tests/tiny")
        held = registry.held("tests/tiny")
        assert held.manifests[str(image.digest)][1] == image.manifest_bytes and not held.tags
        assert held.blobs.keys() == {
            str(image.config_descriptor.digest),
            *(str(layer.blob.digest) for layer in image.layers),
        }
