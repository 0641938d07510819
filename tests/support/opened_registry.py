"""A registry that is opened as a mirror, and pushed to without a gate."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import warnings
from pathlib import Path

from pipeline.digest import Digest, canonical_json
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.protocol import Arrival
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.oci.image_manifest import descriptor_json
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import Network
from tests.support.patience import HUNG

NETWORK = Network(backoff=0.05)
EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)


def opened(
    host: str, namespace: str, *, scheme: str = "registry+http", read_back: bool = False, **environment: str
) -> RegistryMirror:
    url = f"{scheme}://{host}/{namespace}"
    return open_registry(url, environment=environment, progress=QUIET, network=NETWORK, read_back=read_back)


def push(repository: RegistryRepository, image: Image, store: Store) -> list[Arrival]:
    """What a publisher does, without its gate."""
    how = [repository.put_blob(layer.blob, store.blob(layer.blob.digest)) for layer in image.layers]
    config = image.config_bytes
    how.append(repository.put_blob(Descriptor(media_types.CONFIG, Digest.of(config), len(config)), config))
    repository.put_manifest(Manifest(media_types.MANIFEST, image.manifest_bytes))
    return how


def note(number: int, subject: Manifest) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": "application/vnd.relbuild.test",
        "config": descriptor_json(EMPTY),
        "layers": [descriptor_json(EMPTY)],
        "subject": descriptor_json(subject.descriptor),
        "annotations": {"number": str(number)},
    }
    return Manifest(media_types.MANIFEST, canonical_json(document))


def clients(*argv: str | Path, **environment: str) -> str:
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, env={**os.environ, **environment}, timeout=HUNG
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def login(folder: Path, host: str, user: str = "user", password: str = "secret") -> str:
    """Write a file of logins as `podman login` does; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    (folder / "auth.json").write_text(json.dumps({"auths": {host: entry}}))
    return str(folder / "auth.json")


def htpasswd(folder: Path, password: str) -> Path:
    """Write a file that lets `user` in with a password."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt

        hashed = crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=1 << 5))
    (folder / "htpasswd").write_text(f"user:{hashed}\n")
    return folder / "htpasswd"
