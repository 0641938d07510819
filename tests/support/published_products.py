"""Goods that are published through the command line to a site, and what a person asks relbuild of them there."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.build import BuildResult, build_report_json
from pipeline.digest import Digest
from pipeline.launch import SmokeResult
from pipeline.model.manifests import Manifest
from pipeline.oci import make_image, make_index, write_layout
from pipeline.prepare import BuildEnvironment
from pipeline.reports import report_documents, write_report
from pipeline.store import Store
from tests.support.product_builds import SmallProducts
from tests.support.sites import Site, relbuild, relbuild_at_once
from tests.support.tested_images import about


@dataclass(frozen=True, slots=True)
class ProductsToPublish:
    """What is published: `nginx`, one product for two architectures, and two versions of a small product. `store` is
    that of all but nginx."""

    nginx: BuildResult
    pair: tuple[BuildResult, BuildResult]
    versions: tuple[BuildResult, BuildResult]
    store: Store

    @property
    def index(self) -> Manifest:
        """Of the pair."""
        return make_index([built.image for built in self.pair])


@dataclass(frozen=True, slots=True)
class PublishedProducts:
    """Goods on a site, and what `relbuild publish --json` said of each product. `folder` has the keys and a home."""

    goods: ProductsToPublish
    site: Site
    folder: Path
    said: dict[str, dict[str, Any]]

    def relbuild(self, command: str, *words: str | Path, key: str = "") -> subprocess.CompletedProcess[str]:
        """A command that gives its result as JSON; what moves tags has the private key, and `history` none."""
        key = key or ("ours.key" if command in {"promote", "rollback"} else "ours.pub")
        argv = [command, *words, "--json", "--progress", "none", "--store", self.goods.store.root]
        return relbuild_at_once(self.folder, *argv, *(() if command == "history" else ("--key", self.folder / key)))

    def done(self, command: str, *words: str | Path) -> dict[str, Any]:
        """What a command that succeeds says."""
        done = self.relbuild(command, *words)
        assert done.returncode == 0, done.stderr
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def refused(self, command: str, *words: str | Path, key: str = "") -> tuple[int, set[str]]:
        """Exit status and codes of a command that fails, with a message for people as well."""
        done = self.relbuild(command, *words, key=key)
        value = json.loads(done.stdout)
        assert value["exit_code"] == done.returncode
        codes = {problem["code"] for problem in value["error"]}
        assert all(f"error[{code}]" in done.stderr for code in codes) and "Traceback" not in done.stderr
        return done.returncode, codes

    def references(self) -> list[tuple[str, Digest]]:
        """All that is signed and published: what clients are told, and the digest that it has to come to."""
        pair, nginx = [built.image.digest for built in self.goods.pair], self.goods.nginx.image.digest
        return [
            (self.site.pulled("nginx"), nginx),
            (self.site.pulled("nginx", nginx), nginx),
            (self.site.pulled("pair"), self.goods.index.digest),
            (self.site.pulled("pair", self.goods.index.digest), self.goods.index.digest),
            *((self.site.pulled("pair", digest), digest) for digest in pair),
        ]


def other_architecture(built: BuildResult, small: SmallProducts, architecture: str) -> BuildResult:
    """The same image for another architecture, with all that a build leaves and the evidence of the one that was
    tested: its programs are of this machine, so none of them is launched."""
    store = small.build_env.store
    image = make_image(
        built.image.name,
        built.image.reference,
        replace(built.image.config, architecture=architecture),
        built.image.layers,
    )
    assert built.evidence is not None
    evidence = about(built.evidence, image)
    tested = SmokeResult(evidence.report, reused=False, evidence=evidence)
    layout = built.layout.parent.parent / architecture / image.name
    write_layout(image, store=store, target=layout)
    bill = replace(
        built.bill, digest=image.digest, config=image.config_descriptor.digest, architecture=image.config.architecture
    )
    provenance = replace(built.record.provenance, architecture=architecture)
    record = replace(built.record, image=image.digest, provenance=provenance)
    made = replace(
        built,
        assembled=replace(built.assembled, image=image),
        layout=layout,
        tested=tested,
        bill=bill,
        record=record,
        documents=report_documents(bill, record, store=store),
    )
    write_report(
        made.report_folder,
        build_report_json(made),
        made.documents,
        report=made.report,
        evidence=made.evidence,
        image=image,
        store=store,
    )
    return made


def publish_products(
    goods: ProductsToPublish, site: Site, keys: Path, build_env: BuildEnvironment
) -> PublishedProducts:
    """All goods, published through the command line by the key `ours.key`; nginx is from `build_env`."""
    said = {}
    for store, builts in (
        (build_env.store, (goods.nginx,)),
        (goods.store, goods.pair),
        (goods.store, goods.versions[:1]),
        (goods.store, goods.versions[1:]),
    ):
        done = relbuild(
            keys, "publish", *(built.layout for built in builts), "--to", site.to, "--as", site.host,
            "--key", "ours.key", "--store", store.root, "--json", "--progress", "none",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (one,) = json.loads(done.stdout)["published"]
        said[builts[0].image.name] = one
    return PublishedProducts(goods, site, keys, said)
