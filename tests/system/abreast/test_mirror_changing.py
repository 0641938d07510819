"""A directory mirror while it changes, behind nginx, and the time that a publication takes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import tempfile
import time
from pathlib import Path

from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.model.image import Descriptor
from pipeline.store import Store
from tests.support.tag_moving_publisher import moving
from tests.support.webserver import nginx


def test_who_asks_nginx_while_a_tag_moves_gets_old_or_new(tmp_path: Path) -> None:
    open_directory(tmp_path / "mirror", create=True, clock=time.time)
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(nginx(tmp_path / "mirror", tmp_path / "nginx"))
        connection = http.client.HTTPConnection(host, timeout=10)
        stack.callback(connection.close)
        process = stack.enter_context(moving(tmp_path, 6, prune=False))
        seen = set()
        asked = 0
        while process.poll() is None:
            connection.request("GET", "/v2/tiny/manifests/latest")
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200
            # The digest in the header and the bytes are of one manifest.
            assert answer.headers["Docker-Content-Digest"] == f"sha256:{hashlib.sha256(body).hexdigest()}"
            seen.add(answer.headers["Docker-Content-Digest"])
            connection.request("HEAD", "/v2/tiny/manifests/latest")
            head = connection.getresponse()
            head.read()
            digest = head.headers["Docker-Content-Digest"]
            connection.request("GET", f"/v2/tiny/manifests/{digest}")
            by_digest = connection.getresponse()
            data = by_digest.read()
            assert (by_digest.status, len(data)) == (200, int(head.headers["Content-Length"]))
            for layer in json.loads(data)["layers"]:
                connection.request("HEAD", f"/v2/tiny/blobs/{layer['digest']}")
                blob = connection.getresponse()
                blob.read()
                assert blob.status == 200
            asked += 1
    assert asked > 100
    assert len(seen) > 20
    assert "[error]" not in (tmp_path / "nginx" / "error.log").read_text()


def test_publishing_what_the_store_has_is_a_matter_of_a_copy(tmp_path: Path) -> None:
    """100 MB, on the store's file system and on another; the figures are printed (`-s`), and the bounds are wide enough
    for a busy machine."""
    store = Store.open(tmp_path / "store")
    blobs = [Descriptor("x/y", store.put(data), len(data)) for data in (os.urandom(10 << 20) for _ in range(10))]
    taken = {}
    for name, folder in (("same", tmp_path), ("other", Path("/dev/shm"))):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            root = Path(place) / "mirror"
            mirror = open_directory(root, create=True, clock=time.time)
            repository = mirror.repository("large")
            began = time.monotonic()
            for blob in blobs:
                repository.put_blob(blob, store.blob(blob.digest))
            taken[name] = time.monotonic() - began
            assert not mirror.place.blob(blobs[0].digest).samefile(store.blob(blobs[0].digest))
    print({name: f"{seconds:.3f} s" for name, seconds in taken.items()})
    assert max(taken.values()) < 40
