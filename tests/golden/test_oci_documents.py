"""The very bytes of config, manifest and index: other bytes are another digest for everybody.

RELBUILD_REGENERATE=1 writes what they are now; look at the difference before it is committed.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.model.image import ImageConfig
from pipeline.oci import index_bytes, make_image
from tests.support.tiny_image import CONFIG, fake_layer

FOLDER = Path(__file__).parent / "oci"

IMAGES = {
    "full": make_image(
        "tiny",
        "1.0",
        CONFIG,
        [fake_layer("base"), fake_layer("product")],
        {"org.opencontainers.image.url": "x"},
    ),
    "least": make_image("least", "latest", ImageConfig("arm64", 0, variant="v8"), []),
    "unicode": make_image("näme", "host/näme:1", replace(CONFIG, labels=(("ü", '"\\\n'),)), [fake_layer("ß")]),
}


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_documents_are_byte_for_byte_what_they_were(name: str) -> None:
    image = IMAGES[name]
    documents = {
        "config": image.config_bytes,
        "manifest": image.manifest_bytes,
        "index": index_bytes(image),
    }
    said = {kind: {"digest": str(Digest.of(data)), "document": json.loads(data)} for kind, data in documents.items()}
    path = FOLDER / f"{name}.json"
    if os.environ.get("RELBUILD_REGENERATE"):
        path.write_text(json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    assert said == json.loads(path.read_text(encoding="utf-8"))
    for data in documents.values():
        assert data == canonical_json(json.loads(data))
