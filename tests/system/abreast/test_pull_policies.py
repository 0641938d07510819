"""skopeo pulls from a mirror by the policy that docs/mirrors.md shows, and takes what that asks for, no more."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.address_parser import parse_mirror_address
from pipeline.mirror.protocol import Repository
from pipeline.oci import read_artifact, read_layout, signature_tag
from pipeline.release.current_images import mirror_access
from tests.support.document_sessions import blocks
from tests.support.foreign_programs import ROOT, program
from tests.support.patience import HUNG
from tests.support.published_images import ImagePublisher, key
from tests.support.sites import KINDS_OF_SITES, Site, open_site

OURS, THEIRS, LATER = key(0), key(1), key(2)
POLICY, BESIDE = (
    "\n".join(lines)
    for heading, _, lines in blocks(ROOT / "docs" / "mirrors.md")
    if heading == "By podman and skopeo, at each pull"
)
"""The two files of the document: the policy, and what tells that signatures are beside the images."""
DOCUMENTED = "registry.example/prod"


@dataclass(frozen=True)
class Puller:
    """One who pulls from a site with the document's files, in which host and key are those of the test."""

    folder: Path
    site: Site
    beside: bool = True

    def policy(self, **changed: object) -> Path:
        """The document's policy, with other values in its one requirement."""
        assert POLICY.count(f'"{DOCUMENTED}"') == 1
        document = json.loads(POLICY.replace(DOCUMENTED, self.site.host))
        (requirement,) = document["transports"]["docker"][self.site.host]
        assert Path(requirement["keyPath"]).name == "release.pub"
        requirement["keyPath"] = str(self.key("release.pub", OURS.public.pem))
        requirement.update(changed)
        if "keyPaths" in changed:
            del requirement["keyPath"]
        path = self.folder / "policy.json"
        path.write_text(json.dumps(document))
        return path

    def key(self, name: str, pem: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(pem)
        return path

    def pull(self, name: str, reference: Digest | str, policy: Path) -> subprocess.CompletedProcess[str]:
        """Copy an image into a new layout."""
        shutil.rmtree(self.folder / "pulled", ignore_errors=True)
        registries = self.folder / "registries.d"
        registries.mkdir(exist_ok=True)
        assert BESIDE.count(f"{DOCUMENTED}:") == 1
        if self.beside:
            (registries / "mirror.yaml").write_text(BESIDE.replace(DOCUMENTED, self.site.host))
        argv = [
            program("skopeo"), "--policy", policy, "--registries.d", registries, "copy", "--src-tls-verify=false",
            "--remove-signatures", f"docker://{self.site.pulled(name, reference)}", f"oci:{self.folder / 'pulled'}",
        ]  # fmt: skip
        home = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=HUNG, env=home)

    def takes(self, name: str, reference: Digest | str, wanted: Digest, policy: Path | None = None) -> None:
        done = self.pull(name, reference, policy or self.policy())
        assert done.returncode == 0, done.stderr
        assert read_layout(self.folder / "pulled").digest == wanted

    def refuses(self, name: str, reference: Digest | str, why: str, policy: Path | None = None) -> None:
        done = self.pull(name, reference, policy or self.policy())
        assert done.returncode != 0 and why in done.stderr, done.stderr
        assert not (self.folder / "pulled" / "index.json").exists()


@dataclass(frozen=True)
class Published:
    """A site with images of `small` under tags: `1.0` and `2.0` by the own key, `theirs`, `later` by the next one."""

    site: Site
    maker: ImagePublisher

    @contextlib.contextmanager
    def repository(self, name: str = "small") -> Iterator[Repository]:
        """One that can be published to."""
        known_as = self.site.host if self.site.kind == "directory" else ""
        access = mirror_access(self.maker.build_env)
        to = parse_mirror_address(self.site.to, "--to")
        with access.mirror(to, create=True, name=known_as) as mirror, mirror.writing():
            yield mirror.repository(name)


@pytest.fixture(scope="module", params=KINDS_OF_SITES)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("published")
    with open_site(request.param, folder / "site") as site:
        made = Published(site, ImagePublisher.at(folder))
        with made.repository() as repository:
            for tag, signer in (("1.0", OURS), ("2.0", OURS), ("theirs", THEIRS), ("later", LATER)):
                made.maker.publish(repository, made.maker.image(tag), tags=(tag,), signer=signer)
        yield made


@pytest.fixture
def puller(published: Published, tmp_path: Path) -> Puller:
    return Puller(tmp_path, published.site)


def test_a_signed_image_is_pulled_by_tag_and_by_digest(published: Published, puller: Puller) -> None:
    digest = published.maker.image("1.0").digest
    puller.takes("small", "1.0", digest)
    puller.takes("small", digest, digest)


def test_an_image_that_another_key_signed_is_refused(published: Published, puller: Puller) -> None:
    puller.refuses("small", "theirs", "cryptographic signature verification failed")
    puller.refuses("small", published.maker.image("theirs").digest, "cryptographic signature verification failed")


def test_an_image_without_a_signature_is_refused(published: Published, puller: Puller) -> None:
    with published.site.pointing("small", signature_tag(published.maker.image("2.0").digest), None):
        puller.refuses("small", "2.0", "A signature was required, but no signature exists")
    puller.takes("small", "2.0", published.maker.image("2.0").digest)


def test_an_image_that_was_signed_as_another_product_is_refused(published: Published, puller: Puller) -> None:
    """Who can write to the mirror puts a product, with its good signature, in the place of another."""
    site, image = published.site, published.maker.image("1.0")
    signature = site.manifest("small", signature_tag(image.digest))
    artifact = read_artifact(signature)
    with published.repository("other") as repository:
        published.maker.publish(repository, image, tags=("1.0",), signer=OURS)
        for one in (artifact.config, *artifact.layers):
            repository.put_blob(one, site.blob("small", one.digest))
        repository.put_manifest(signature)
    puller.takes("other", "1.0", image.digest)
    with site.pointing("other", signature_tag(image.digest), signature):
        puller.refuses("other", "1.0", f"{site.host}/small")


def test_without_the_file_for_signatures_everything_is_refused(published: Published, tmp_path: Path) -> None:
    puller = Puller(tmp_path, published.site, beside=False)
    puller.refuses("small", "1.0", "A signature was required, but no signature exists")


def test_while_the_key_is_changed_both_are_named(published: Published, puller: Puller) -> None:
    document = (ROOT / "docs" / "mirrors.md").read_text()
    assert '"keyPaths": ["…/release2.pub", "…/release.pub"]' in document
    keys = [str(puller.key("release2.pub", LATER.public.pem)), str(puller.key("release.pub", OURS.public.pem))]
    for tag in ("1.0", "later"):
        puller.takes("small", tag, published.maker.image(tag).digest, puller.policy(keyPaths=keys))
    puller.refuses("small", "theirs", "signature verification failed", puller.policy(keyPaths=keys))
    puller.refuses("small", "later", "signature verification failed")


def test_the_defaults_want_a_tag_in_the_signed_name(published: Published, puller: Puller) -> None:
    """Why the document's `signedIdentity` must be said."""
    exact = puller.policy(signedIdentity={"type": "matchRepoDigestOrExact"})
    puller.refuses("small", "1.0", "is not accepted", exact)
    named = {"type": "exactRepository", "dockerRepository": f"{published.site.host}/small"}
    puller.takes("small", "1.0", published.maker.image("1.0").digest, puller.policy(signedIdentity=named))
