"""What is put into the registry, and how it is reached."""

from __future__ import annotations

from pipeline.digest import Digest, canonical_json
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.oci.image_manifest import descriptor_json
from pipeline.progress import QUIET
from pipeline.transfer import Network
from tests.support.patience import HUNG
from tests.support.registry_fake import FakeRegistry, Held

NETWORK = Network(timeout=HUNG, backoff=0.001, attempts=3)
EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)
IMAGE = "ns/app"


def open_mirror(registry: FakeRegistry, *, read_back: bool = False) -> RegistryMirror:
    return open_registry(
        f"registry+http://{registry.host}/ns", environment={}, progress=QUIET, network=NETWORK, read_back=read_back
    )


def blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


def manifest(note: str, subject: Manifest | None = None, **more: object) -> Manifest:
    empty = descriptor_json(EMPTY)
    document = {"schemaVersion": 2, "mediaType": media_types.MANIFEST, "config": empty, "layers": [empty], **more}
    document["annotations"] = {"note": note}
    if subject:
        document |= {"subject": descriptor_json(subject.descriptor), "artifactType": "test/note"}
    return Manifest(media_types.MANIFEST, canonical_json(document))


def put(held: Held, one: Manifest, *tags: str) -> Manifest:
    held.manifests[str(one.digest)] = (one.media_type, one.data)
    held.tags |= dict.fromkeys(tags, str(one.digest))
    return one
