"""Pulls as clients do, over HTTP and by tag, and looks at every byte and signature: with nothing of relbuild's own but
the keys that it was given, so that what it finds complete is so in other eyes.

As a program it pulls in a loop until its standard input ends, and then says what it found.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[2]
ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
SIMPLE = "dev.cosignproject.cosign/signature"
EXPECTED = frozenset(
    {
        "https://sigstore.dev/cosign/sign/v1",
        "https://slsa.dev/provenance/v1",
        "https://spdx.dev/Document",
        "https://cyclonedx.org/bom",
        "https://relbuild.org/smoke/v1",
    }
)
"""What is attested of every image."""


PAUSE = 0.05
"""Seconds between two pulls, at least: servers, publishers and clients share few cores."""
REST = 3
"""Between two pulls a client waits for so many times what the last one took, so that on a busy machine, where all is
slow, publishers get more of it than those who look on."""


PATIENCE = 600
"""Seconds for one request, and for one pull of skopeo's: beside other work they take long, which is no loss."""


PROMISED = 2.0
"""Seconds that all of an image is there for, at least, from the moment in which a tag led to it: what
`killed_publisher.GRACE` comes to. A pull that takes longer, as on a busy machine, may find that something has gone."""


LATE_MOST = 5
"""Such pulls one after the other, which may have a cause of their own if there are more."""


class Incomplete(Exception):
    """A pull that a client would not accept, and where it stopped."""


def digest_of(data: bytes) -> str:
    """`sha256:HEX`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class Puller:
    """A client of the repository `name` at `host`. `keys`: public keys in PEM; an image must be signed with each of
    them, and each of EXPECTED attested by one."""

    host: str
    name: str
    keys: Sequence[bytes]
    seen: Counter[str] = field(default_factory=Counter)
    """Digests of images, and how often each was pulled whole."""
    unanswered: int = 0
    """How often a server said 5xx and was asked again: docker-registry writes a tag's file in place, and whoever asks
    in the moment in which it is empty is answered 500 ("invalid checksum digest format")."""
    _connection: http.client.HTTPConnection | None = None

    def pull(self, tag: str) -> str:
        """The whole image under a tag, with its signatures and what is attested; returns its digest. Raises
        Incomplete."""
        try:
            return self._pull(tag)
        finally:
            self._close()

    def digest(self, tag: str) -> str:
        """What a tag points to, its bytes looked at."""
        try:
            return digest_of(self._manifest(tag)[0])
        finally:
            self._close()

    def _pull(self, tag: str) -> str:
        data, _ = self._manifest(tag)
        digest = digest_of(data)
        manifest = json.loads(data)
        for one in (manifest["config"], *manifest["layers"]):
            blob = self._get(f"blobs/{one['digest']}")[1]
            if (digest_of(blob), len(blob)) != (one["digest"], one["size"]):
                raise Incomplete(f"{tag}: blob {one['digest']} has other bytes")
        self._signed(digest)
        self._attested(digest)
        self.seen[digest] += 1
        return digest

    def _signed(self, digest: str) -> None:
        tag = digest.replace(":", "-") + ".sig"
        data, _ = self._manifest(tag)
        good = set()
        for layer in json.loads(data)["layers"]:
            payload = self._blob(layer)
            if json.loads(payload)["critical"]["image"]["docker-manifest-digest"] != digest:
                raise Incomplete(f"{tag} speaks of another image")
            good |= self._signers(base64.b64decode(layer["annotations"][SIMPLE]), payload)
        if len(good) != len(self.keys):
            raise Incomplete(f"{tag}: signed with {len(good)} of {len(self.keys)} keys")

    def _attested(self, digest: str) -> None:
        """By the referrers API, or by the fallback tag where there is none (distribution-spec 1.1)."""
        status, data, _ = self._ask(f"referrers/{digest}")
        if status == 404:
            data, _ = self._manifest(digest.replace(":", "-"))
        found = set()
        for one in json.loads(data)["manifests"]:
            raw, _ = self._manifest(one["digest"])
            manifest = json.loads(raw)
            if manifest["subject"]["digest"] != digest:
                raise Incomplete(f"{one['digest']} speaks of another image than {digest}")
            self._blob(manifest["config"])
            envelope = json.loads(self._blob(manifest["layers"][0]))["dsseEnvelope"]
            payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
            signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
            statement = json.loads(payload)
            if statement["subject"][0]["digest"]["sha256"] != digest.removeprefix("sha256:"):
                raise Incomplete(f"{one['digest']} attests something of another image than {digest}")
            for signer in self._signers(base64.b64decode(envelope["signatures"][0]["sig"]), signed):
                found.add((signer, statement["predicateType"]))
        missing = {(signer, kind) for signer in range(len(self.keys)) for kind in EXPECTED} - found
        if missing:
            raise Incomplete(f"{digest}: not attested, or not by the key: {sorted(missing)}")

    def _signers(self, signature: bytes, signed: bytes) -> set[int]:
        good = set()
        for number, pem in enumerate(self.keys):
            key = serialization.load_pem_public_key(pem)
            assert isinstance(key, ec.EllipticCurvePublicKey)
            with contextlib.suppress(InvalidSignature):
                key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
                good.add(number)
        return good

    def _blob(self, descriptor: dict[str, Any]) -> bytes:
        data = self._get(f"blobs/{descriptor['digest']}")[1]
        if digest_of(data) != descriptor["digest"]:
            raise Incomplete(f"blob {descriptor['digest']} has other bytes")
        return data

    def _manifest(self, reference: str) -> tuple[bytes, str]:
        _, data, headers = self._get(f"manifests/{reference}")
        if headers.get("docker-content-digest") != digest_of(data):
            raise Incomplete(f"{reference}: header {headers.get('docker-content-digest')}, bytes {digest_of(data)}")
        if reference.startswith("sha256:") and reference != digest_of(data):
            raise Incomplete(f"{reference} has other bytes")
        if json.loads(data)["mediaType"] != headers.get("content-type"):
            raise Incomplete(f"{reference} is served as {headers.get('content-type')}")
        return data, headers["content-type"]

    def _get(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        status, data, headers = self._ask(path)
        if status != 200:
            raise Incomplete(f"{path}: {status} {data[:200]!r}")
        return status, data, headers

    def _ask(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        for left in (2, 1, 0):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)
            self._connection.request("GET", f"/v2/{self.name}/{path}", headers={"Accept": ACCEPT})
            answer = self._connection.getresponse()
            data = answer.read()
            if answer.status < 500 or not left:
                break
            self.unanswered += 1
            time.sleep(0.02)
        return answer.status, data, {name.lower(): value for name, value in answer.getheaders()}

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


# --- in a loop, in a process of its own ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a loop found: pulls that were whole, how many images that were, how often a tag pointed to another than at
    the pull before, questions that had to be asked again, pulls that were too slow for what is promised (`PROMISED`),
    and what was not whole."""

    pulls: int
    images: int
    changes: int
    unanswered: int
    late: int
    incomplete: tuple[str, ...]


@contextlib.contextmanager
def pulling(kind: str, host: str, name: str, tags: Sequence[str], key: bytes) -> Iterator[list[Found]]:
    """Pull in a process of its own for as long as the block lasts; then what it found is in the list that is yielded.
    `kind`: `http`, or `skopeo` for the client of that name (which looks at digests, and at no signatures)."""
    argv = [sys.executable, "-m", "tests.support.pulling", kind, host, name, ",".join(tags)]
    found: list[Found] = []
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(base64.b64encode(key) + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"ready\n"
            yield found
            process.stdin.close()
            said = json.loads(process.stdout.read())
            found.append(Found(**{**said, "incomplete": tuple(said["incomplete"])}))
        finally:
            process.kill()


def _loop(kind: str, host: str, name: str, tags: list[str]) -> None:
    puller = Puller(host, name, [base64.b64decode(sys.stdin.readline())])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    print("ready", flush=True)
    pulls, changes, late, in_a_row, incomplete = 0, 0, 0, 0, list[str]()
    last: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        while not ended.is_set():
            tag = tags[pulls % len(tags)]
            began = time.monotonic()
            try:
                digest = puller.pull(tag) if kind == "http" else _skopeo(host, name, tag, Path(folder) / "image")
            except Incomplete as error:
                if time.monotonic() - began >= PROMISED and in_a_row < LATE_MOST:
                    late, in_a_row = late + 1, in_a_row + 1
                    continue
                incomplete.append(f"{time.time():.3f} {tag}: {error}")
                if len(incomplete) > 20:
                    break
                continue
            pulls, in_a_row = pulls + 1, 0
            changes += last.get(tag) != digest
            last[tag] = digest
            puller.seen[digest] += kind != "http"
            ended.wait(max(PAUSE if kind == "http" else 10 * PAUSE, REST * (time.monotonic() - began)))
    found = Found(pulls, len(puller.seen), changes, puller.unanswered, late, tuple(incomplete))
    print(json.dumps(asdict(found)))


def _skopeo(host: str, name: str, tag: str, folder: Path) -> str:
    source = f"docker://{host}/{name}:{tag}"
    argv = ["skopeo", "copy", "--quiet", "--retry-times=2", "--src-tls-verify=false", source, f"dir:{folder}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode != 0:
        raise Incomplete(f"skopeo: {done.stderr[-500:]}")
    return digest_of((folder / "manifest.json").read_bytes())


if __name__ == "__main__":
    _loop(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(","))
