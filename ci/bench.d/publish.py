"""Publishing an image to a fresh mirror and twice to one that has it, against `skopeo copy` of the same layout.

To docker-registry on the loopback, each through a counter of what is sent, and to a directory, where skopeo's peers
are `dir:` (files by digest) and `oci:` (a layout).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from limit_publish import sent_anew
from product import DEFAULT
from turns import BYTES, OURS, ROOT, BenchFailed, Goal, Section, Session, differences, relbuild, run

from pipeline.build import BuildResult, build
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.counting_proxy import counted_registry, stored
from tests.support.signing_examples import PRIVATE

SKOPEO, TO_FILES, TO_LAYOUT, LIMIT = "skopeo", "skopeo dir:", "skopeo oci:", "limit of the requests"
FRESH, SAME, AGAIN = "fresh", "unchanged", "unchanged again"
"""A registry's second publication, which changes nothing, is made in full and remembered; the third is recognised."""


def on_disk(folder: Path) -> int:
    """Bytes of the files below a folder, each inode once."""
    seen = {}
    for path in folder.rglob("*") if folder.exists() else ():
        if path.is_file() and not path.is_symlink():
            found = path.stat()
            seen[found.st_ino] = found.st_size
    return sum(seen.values())


@dataclass(frozen=True, slots=True)
class Publications:
    """What is published, and from where."""

    session: Session
    built: BuildResult
    build_env: BuildEnvironment

    def relbuild(self, to: str) -> None:
        """Publish with all attestations."""
        relbuild(
            "publish", self.built.layout, "--to", to, "--key", self.session.folder / "key",
            "--store", self.build_env.store.root, "--progress", "none",
        )  # fmt: skip

    def skopeo(self, target: str) -> None:
        """Copy the image."""
        source = f"oci:{self.built.layout}:{self.built.image.reference}"
        run("skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", source, target)

    def take(self, who: str, what: str, act: Callable[[], None], size: Callable[[], int]) -> None:
        """Do it; note what it took and by how much `size` grew."""
        before = size()
        self.session.take(who, what, act)
        self.session.record(who, f"{what}, bytes", size() - before, BYTES)

    def registries(self) -> None:
        """Two fresh registries, one for each, and one for what relbuild's has, sent at the limit."""
        ours, theirs, third = (self.session.folder / name for name in ("ours", "theirs", "limit"))
        name = self.built.image.name
        with counted_registry(ours) as (own, our_counter), counted_registry(theirs) as (other, their_counter):
            for what in (f"registry, {FRESH}", f"registry, {SAME}", f"registry, {AGAIN}"):
                self.take(OURS, what, lambda: self.relbuild(f"registry+http://{own}/ns"), lambda: our_counter.sent)
                to = f"docker://{other}/ns/{name}:latest"
                self.take(SKOPEO, what, lambda: self.skopeo(to), lambda: their_counter.sent)  # noqa: B023
        with counted_registry(third) as (host, _):
            self.session.record(LIMIT, f"registry, {FRESH}", sent_anew(ours, host))
        for who, folder in ((OURS, ours), (SKOPEO, theirs), (LIMIT, third)):
            self.session.record(who, "held by the registry", sum(stored(folder).values()), BYTES)
            shutil.rmtree(folder)

    def directories(self) -> None:
        """A fresh directory for each."""
        places = {who: self.session.folder / who.replace(" ", "-").rstrip(":") for who in (OURS, TO_FILES, TO_LAYOUT)}
        places = {who: place.with_name(f"to-{place.name}") for who, place in places.items()}
        targets = {
            OURS: f"dir:{places[OURS]}",
            TO_FILES: f"dir:{places[TO_FILES]}",
            TO_LAYOUT: f"oci:{places[TO_LAYOUT]}:latest",
        }
        for what in (f"directory, {FRESH}", f"directory, {SAME}"):
            for who, place in places.items():
                act = self.relbuild if who == OURS else self.skopeo
                self.take(who, what, lambda: act(targets[who]), lambda: on_disk(place))  # noqa: B023
        for place in places.values():
            shutil.rmtree(place)


def measure(session: Session) -> None:
    """Build one image, and publish it to new places in each turn."""
    product = session.settings.get("product", DEFAULT)
    shutil.copytree(ROOT / "recipes", session.folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(ROOT / "templates", session.folder / "templates")
    (session.folder / "key").write_bytes(PRIVATE)
    (session.folder / "key").chmod(0o600)
    build_env = BuildEnvironment(Store.open(session.folder / "store"), QUIET, dict(os.environ), time.time)
    recipes = session.folder / "recipes"
    built = build(
        BuildOptions(recipes / f"{product}.yaml", recipes / "repositories.yaml", output=session.folder / "output"),
        build_env,
    )
    if built.report is None or not built.report.passed:
        raise BenchFailed(f"{product} did not pass its tests: {built.report and built.report.problems}")
    publications = Publications(session, built, build_env)
    for _ in session.turns():
        publications.registries()
        publications.directories()
    fresh, same, again = f"registry, {FRESH}", f"registry, {SAME}", f"registry, {AGAIN}"
    session.ratio(
        "publish to a registry, fresh: time of skopeo's",
        (OURS, fresh),
        (SKOPEO, fresh),
        Goal(2.0),
        limit=(LIMIT, fresh),
    )
    session.row(
        "publish to a registry, unchanged for the first time: time beyond skopeo's",
        differences(session.of(OURS, same), session.of(SKOPEO, same)),
        unit="s",
    )
    session.row(
        "publish to a registry, unchanged again: time beyond skopeo's",
        differences(session.of(OURS, again), session.of(SKOPEO, again)),
        Goal(0.1),
        unit="s",
    )
    fresh, same = f"directory, {FRESH}", f"directory, {SAME}"
    session.ratio(
        "publish to a directory, fresh: time of skopeo's to dir:", (OURS, fresh), (TO_FILES, fresh), Goal(1.3)
    )
    session.ratio("publish to a directory, fresh: time of skopeo's to oci:", (OURS, fresh), (TO_LAYOUT, fresh))
    session.ratio("publish to a directory, unchanged: time of skopeo's to dir:", (OURS, same), (TO_FILES, same))
    session.remark(
        "skopeo copies config, layers and manifest. relbuild signs, attests SBOMs, provenance, the smoke report and "
        "the lock, judges the evidence anew, confirms what it sent and signs the move of each tag. To a directory its "
        "layers are links into the store; skopeo copies them."
    )


SECTIONS = (Section("publish", "Publishing, against skopeo", measure),)
