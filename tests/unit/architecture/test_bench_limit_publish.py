"""The limit for publishing to a registry: all that one registry has is sent to another, and nothing is asked."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.registry_fake import INDEX, FakeRegistry, digest_of, fake_registry

BENCH = Path(__file__).parents[3] / "ci" / "bench.d"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """The files of the folder import each other by bare names."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def _stored(folder: Path, data: bytes, *links: str) -> str:
    """Put bytes where docker-registry keeps them, with links to them; return their digest."""
    digest = digest_of(data)
    value = digest.partition(":")[2]
    place = folder / "data/docker/registry/v2"
    for path, text in (
        (place / "blobs/sha256" / value[:2] / value / "data", data),
        *((place / "repositories" / link.format(value) / "link", digest.encode()) for link in links),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return digest


def _described(digest: str, media_type: str = "application/octet-stream") -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": 1}


def _published(folder: Path) -> dict[str, str]:
    """Make the folder of a registry with two blobs, a manifest and an index of it that has two tags."""
    blobs = [_stored(folder, data, "ns/app/_layers/sha256/{}") for data in (b"config", b"layer")]
    manifest = {"mediaType": MANIFEST, "config": _described(blobs[0]), "layers": [_described(blobs[1])]}
    one = _stored(folder, json.dumps(manifest).encode(), "ns/app/_manifests/revisions/sha256/{}")
    index = {"mediaType": INDEX, "manifests": [_described(one, MANIFEST)]}
    links = ["revisions/sha256/{}", "tags/1.0/current", "tags/1.0/index/sha256/{}", "tags/latest/current"]
    whole = _stored(folder, json.dumps(index).encode(), *(f"ns/app/_manifests/{link}" for link in links))
    return {"config": blobs[0], "layer": blobs[1], "manifest": one, "index": whole}


def _send(folder: Path, registry: FakeRegistry) -> float:
    return float(importlib.import_module("limit_publish").sent_anew(folder, registry.host))


@pytest.mark.parametrize("base", ["", "absolute"])
def test_all_is_sent_in_the_fewest_requests(tmp_path: Path, base: str) -> None:
    """Two for each blob, one for each tag or untagged manifest, whatever form an upload's address has."""
    digests = _published(tmp_path)
    with fake_registry(requires_content=True) as registry:
        registry.upload_base = f"http://{registry.host}" if base else ""
        assert _send(tmp_path, registry) > 0
        held: Any = registry.held("ns/app")
        assert held.blobs == {digests["config"]: b"config", digests["layer"]: b"layer"}
        assert held.manifests.keys() == {digests["manifest"], digests["index"]}
        assert held.tags == dict.fromkeys(("1.0", "latest"), digests["index"])
        assert sorted(method for method, _, _ in registry.requests) == ["POST"] * 2 + ["PUT"] * 5


def test_a_refusal_is_no_faster_limit(tmp_path: Path) -> None:
    """A registry that did not take everything did less than it does for relbuild."""
    _published(tmp_path)
    (layer,) = (path for path in tmp_path.rglob("data") if path.is_file() and path.read_bytes() == b"layer")
    layer.write_bytes(b"other")
    failed = importlib.import_module("turns").BenchFailed
    with fake_registry() as registry, pytest.raises(failed, match=r"PUT .* status 400"):
        _send(tmp_path, registry)
