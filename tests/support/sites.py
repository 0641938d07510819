"""Places to publish to, of both kinds: a registry, and a directory behind nginx. How a person at a terminal publishes
there, how clients see it, and what an attacker does who can write where its files stand."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.digest import Digest
from pipeline.mirror.references import (
    MANIFEST_KINDS,
    fallback_tag,
    referrer_of,
    referrers_index,
)
from pipeline.model.manifests import Artifact, Manifest
from pipeline.oci import bundle_layer, media_types
from tests.support.foreign_programs import ROOT, docker_registry
from tests.support.patience import HUNG
from tests.support.webserver import nginx

KINDS_OF_SITES = ("registry", "directory")

PASSWORD = "a password that stands nowhere else"
"""Of the keys that these tests sign with."""


@dataclass(frozen=True, slots=True)
class Site:
    """A mirror that is empty at first. `kind`: one of KINDS_OF_SITES; `to`: what relbuild is told; `host`:
    `HOST/NAMESPACE` for those who pull; `folder`: where its files stand."""

    kind: str
    to: str
    host: str
    folder: Path

    def address(self, name: str, reference: Digest | str = "latest") -> str:
        """As relbuild is told."""
        return f"{self.to}/{name}{'@' if isinstance(reference, Digest) else ':'}{reference}"

    def pulled(self, name: str, reference: Digest | str = "latest") -> str:
        """As clients are told."""
        return f"{self.host}/{name}{'@' if isinstance(reference, Digest) else ':'}{reference}"

    # --- what clients see

    def manifest(self, name: str, reference: Digest | str) -> Manifest:
        """A manifest or index by tag or digest."""
        accept = ", ".join((media_types.MANIFEST, media_types.INDEX))
        url = f"{self._api(name)}/manifests/{reference}"
        found = httpx.get(url, headers={"accept": accept}, timeout=HUNG).raise_for_status()
        return Manifest(found.headers["content-type"], found.content)

    def blob(self, name: str, digest: Digest) -> bytes:
        """A blob's bytes."""
        return httpx.get(f"{self._api(name)}/blobs/{digest}", timeout=HUNG).raise_for_status().content

    def referrers(self, name: str, subject: Digest) -> list[Artifact]:
        """Bundles that speak of `subject`, as the fallback tag lists them."""
        found = []
        for item in json.loads(self.manifest(name, fallback_tag(subject)).data)["manifests"]:
            manifest = self.manifest(name, Digest.parse(item["digest"]))
            layer = bundle_layer(manifest)
            found.append(Artifact(manifest, ((layer, self.blob(name, layer.digest)),)))
        return found

    def _api(self, name: str) -> str:
        host, _, namespace = self.host.partition("/")
        return f"http://{host}/v2/{f'{namespace}/' if namespace else ''}{name}"

    # --- what an attacker does

    def file(self, name: str, digest: Digest) -> Path:
        """Where the bytes of a blob or manifest stand."""
        if self.kind == "registry":
            return self._registry / "blobs" / "sha256" / digest.hex[:2] / digest.hex / "data"
        found = list((self._repository(name) / "_manifests").glob(f"{digest.hex}.*"))
        return found[0] if found else self.folder / "blobs" / "sha256" / digest.hex

    @contextlib.contextmanager
    def altered(self, name: str, digest: Digest, data: bytes | None) -> Iterator[None]:
        """Other bytes under a digest, or none at all, for as long as the block lasts."""
        path = self.file(name, digest)
        before = path.read_bytes()
        try:
            path.unlink()  # and not written over: it may be a hard link to the very file in the store
            if data is not None:
                path.write_bytes(data)
            yield
        finally:
            path.write_bytes(before)

    def push(self, name: str, artifact: Artifact) -> None:
        """An artifact under its digest: what anybody can push who is let into a registry, or write into a folder."""
        manifest = artifact.manifest
        for descriptor, data in artifact.blobs:
            if not self.file(name, descriptor.digest).exists():
                self._put_blob(name, descriptor.digest, data)
        if self.kind == "registry":
            self._put_manifest(name, manifest.digest, manifest)
        else:
            (self._repository(name) / "_manifests" / _file_name(manifest)).write_bytes(manifest.data)

    @contextlib.contextmanager
    def pointing(self, name: str, tag: str, manifest: Manifest | None) -> Iterator[None]:
        """A tag that points to a manifest that was pushed, or that is not there, for as long as the block lasts."""
        path = self._tag(name, tag)
        before = self._target(path)
        try:
            if manifest is not None and self.kind == "registry":
                self._put_manifest(name, tag, manifest)
            else:
                self._set(
                    path,
                    f"../_manifests/{manifest.digest.hex}.{MANIFEST_KINDS[manifest.media_type]}" if manifest else None,
                )
            yield
        finally:
            self._set(path, before)

    @contextlib.contextmanager
    def attested(self, name: str, subject: Digest, artifacts: list[Artifact]) -> Iterator[None]:
        """Other referrers than those that `subject` had, for as long as the block lasts."""
        for artifact in artifacts:
            self.push(name, artifact)
        listed = referrers_index([referrer_of(artifact.manifest) for artifact in artifacts])
        self.push(name, Artifact(listed))
        with self.pointing(name, fallback_tag(subject), listed if artifacts else None):
            yield

    @property
    def _registry(self) -> Path:
        return self.folder / "docker" / "registry" / "v2"

    def _repository(self, name: str) -> Path:
        if self.kind == "registry":
            return self._registry / "repositories" / self.host.partition("/")[2] / name
        return self.folder / "repositories" / name

    def _tag(self, name: str, tag: str) -> Path:
        if self.kind == "registry":
            return self._repository(name) / "_manifests" / "tags" / tag / "current" / "link"
        return self._repository(name) / "_tags" / tag

    def _target(self, path: Path) -> str | None:
        """What a tag's file says: a registry writes a digest into it, a directory has a symbolic link."""
        if self.kind == "registry":
            return path.read_text() if path.exists() else None
        return str(path.readlink()) if path.is_symlink() else None

    def _set(self, path: Path, target: str | None) -> None:
        path.unlink(missing_ok=True)
        if target is not None and self.kind == "registry":
            path.write_text(target)
        elif target is not None:
            path.symlink_to(target)

    def _put_blob(self, name: str, digest: Digest, data: bytes) -> None:
        if self.kind == "directory":
            (self.folder / "blobs" / "sha256" / digest.hex).write_bytes(data)
            return
        begun = httpx.post(f"{self._api(name)}/blobs/uploads/", timeout=HUNG).raise_for_status()
        where = httpx.URL(self._api(name)).join(begun.headers["location"])
        httpx.put(where.copy_merge_params({"digest": str(digest)}), content=data, timeout=HUNG).raise_for_status()

    def _put_manifest(self, name: str, reference: Digest | str, manifest: Manifest) -> None:
        url = f"{self._api(name)}/manifests/{reference}"
        kind = {"content-type": manifest.media_type}
        httpx.put(url, content=manifest.data, headers=kind, timeout=HUNG).raise_for_status()


def _file_name(manifest: Manifest) -> str:
    return f"{manifest.digest.hex}.{MANIFEST_KINDS[manifest.media_type]}"


@contextlib.contextmanager
def open_site(kind: str, folder: Path) -> Iterator[Site]:
    """A mirror in `folder`, of one of KINDS_OF_SITES, and a server in front of it."""
    if kind == "registry":
        with docker_registry(folder) as host:
            yield Site(kind, f"registry+http://{host}/products", f"{host}/products", folder / "data")
        return
    with nginx(folder / "mirror", folder / "nginx") as host:
        yield Site(kind, f"dir:{folder / 'mirror'}", host, folder / "mirror")


def relbuild(
    folder: Path, *words: str | Path, password: str | None = PASSWORD, at: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own without a terminal, with its home in `folder`, run `at` a place."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=at or folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **_environment(folder, password)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )


def relbuild_at_once(
    folder: Path, *words: str | Path, password: str | None = PASSWORD
) -> subprocess.CompletedProcess[str]:
    """The same in this process: for the many that differ in what they are told and not in how they are started."""
    argv = [str(word) for word in words]
    import_commands(argv[0])
    done = CliRunner().invoke(app, argv, env=_environment(folder, password))
    return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, done.stderr)


def _environment(folder: Path, password: str | None) -> dict[str, str]:
    return {"HOME": str(folder), **({"RELBUILD_KEY_PASSWORD": password} if password is not None else {})}
