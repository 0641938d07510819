"""A directory mirror while it changes, behind nginx, and what is copied into it."""

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
from tests.support.patience import HUNG
from tests.support.tag_moving_publisher import moving
from tests.support.webserver import nginx


def test_who_asks_nginx_while_a_tag_moves_gets_old_or_new(tmp_path: Path) -> None:
    open_directory(tmp_path / "mirror", create=True, clock=time.time)
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(nginx(tmp_path / "mirror", tmp_path / "nginx"))
        connection = http.client.HTTPConnection(host, timeout=HUNG)
        stack.callback(connection.close)
        process = stack.enter_context(moving(tmp_path, prune=False))
        seen = set()
        asked, end = 0, time.monotonic() + 6
        while asked <= 100 or len(seen) <= 20 or time.monotonic() < end:
            assert process.poll() is None
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
    assert "[error]" not in (tmp_path / "nginx" / "error.log").read_text()


def test_publishing_what_the_store_has_copies_it(tmp_path: Path) -> None:
    """On the store's file system and on another: the mirror's file is whole, and shares no inode with the store's."""
    store = Store.open(tmp_path / "store")
    data = os.urandom(10 << 20)
    blob = Descriptor("x/y", store.put(data), len(data))
    for folder in (tmp_path, Path("/dev/shm")):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            mirror = open_directory(Path(place) / "mirror", create=True, clock=time.time)
            mirror.repository("large").put_blob(blob, store.blob(blob.digest))
            copy = mirror.place.blob(blob.digest)
            assert copy.read_bytes() == data
            assert not copy.samefile(store.blob(blob.digest))
