"""Laws of a directory mirror as a state machine: publish, promote, prune, undo, spoil a byte, scrub, in any order.

A tag leads to what it was last pointed to, nothing rotten is published, and a scrub makes all of it whole.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.directory.directory_prune import prune_directory, undo_prunings
from pipeline.mirror.backends.directory.directory_scrub import scrub_directory
from pipeline.mirror.backends.directory.manifest_names import parse_manifest_path
from pipeline.mirror.protocol import is_auxiliary
from pipeline.mirror.repair_sources import RepairSources
from pipeline.model.manifests import Manifest
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.examples import examples
from tests.unit.mirror.directory.test_reuse import flip

NUMBERS = st.integers(1, 4)
TAGS = st.sampled_from(["a", "b", "c"])
RULES = MirrorRules(retention=(RetentionRule(tags="*", keep=2),), grace=0, quarantine=10**6)

FAST = Path("/dev/shm")
"""Where a sync costs nothing, if there is such a place: this makes thousands."""


class MirrorMachine(RuleBasedStateMachine):
    """`tags`: what each was last pointed to; `pruned`: stamp → the tags that went with it."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mirror-", dir=FAST if FAST.is_dir() else None))
        self.store = Store.open(self.folder / "store")
        self.images = {number: mirror_images.image(self.store, number) for number in range(1, 5)}
        self.mirror = self.made("mirror")
        self.other = self.made("other")
        for number in self.images:
            self.publish_to(self.other, number, str(number))
        self.tags: dict[str, Digest] = {}
        self.pruned: dict[str, dict[str, Digest]] = {}

    def made(self, name: str) -> DirectoryMirror:
        return open_directory(self.folder / name, create=True, clock=time.time)

    def publish_to(self, mirror: DirectoryMirror, number: int, tag: str) -> Manifest:
        put = mirror_images.publish(mirror.repository("tiny"), self.store, self.images[number], tag)
        mirror_images.attach(mirror.repository("tiny"), put.descriptor, f"note on {number}")
        return put

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what is done

    @rule(number=NUMBERS, tag=TAGS)
    def publish(self, number: int, tag: str) -> None:
        """Whatever of it was rotten is whole afterwards."""
        if self.spoiled_manifests():
            self.scrub()  # a rotten list of referrers cannot be added to
        put = self.publish_to(self.mirror, number, tag)
        self.tags[tag] = put.digest
        repository = self.mirror.repository("tiny")
        for one in (self.images[number].config_descriptor, *(layer.blob for layer in self.images[number].layers)):
            repository.check_blob(one)

    @precondition(lambda self: self.tags)
    @rule(data=st.data(), tag=TAGS)
    def promote(self, data: st.DataObject, tag: str) -> None:
        digest = data.draw(st.sampled_from(sorted(self.tags.values(), key=str)))
        repository = self.mirror.repository("tiny")
        try:
            manifest = repository.manifest(digest)
        except VerificationError:
            assert self.spoiled_manifests()
            return
        assert manifest is not None
        repository.point(tag, mirror_images.cleared(manifest), repository.resolve(tag))
        self.tags[tag] = digest

    @rule()
    def prune(self) -> None:
        before = mirror_images.all_files(self.mirror.place.root)
        try:
            done = prune_directory(self.mirror, RULES, int(time.time()) + 100)
        except VerificationError:
            assert self.spoiled_manifests()
            assert mirror_images.all_files(self.mirror.place.root) == before
            return
        gone = {one.tag: one.digest for one in done.plan.tags if not is_auxiliary(one.tag)}
        if done.stamp:
            self.pruned[done.stamp] = gone
        for tag, digest in gone.items():
            assert self.tags.pop(tag) == digest

    @precondition(lambda self: self.pruned and not self.spoiled_manifests())
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        stamp = data.draw(st.sampled_from(sorted(self.pruned)))
        done = undo_prunings(self.mirror, stamp)
        assert stamp in done.stamps
        for one in done.stamps:
            for tag, digest in self.pruned.pop(one).items():
                self.tags.setdefault(tag, digest)

    @precondition(lambda self: self.files())
    @rule(data=st.data())
    def spoil(self, data: st.DataObject) -> None:
        """One bit of one file, as a disk does."""
        flip(data.draw(st.sampled_from(self.files())))

    @precondition(lambda self: self.files())
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """One file that something needs, as a file system does."""
        path = data.draw(st.sampled_from(self.files()))
        if path.parent == self.mirror.place.blobs:
            path.unlink()
            self.scrub()

    @rule()
    def scrub(self) -> None:
        done = scrub_directory(self.mirror, RepairSources(self.store, (self.other,)), rate=0, progress=QUIET)
        assert not done.lost, done.lost
        assert not self.spoiled()
        again = scrub_directory(self.mirror, RepairSources(self.store, (self.other,)), rate=0, progress=QUIET)
        assert not again.findings, again.findings

    # --- what always holds

    @invariant()
    def every_tag_leads_where_it_was_pointed(self) -> None:
        repository = self.mirror.repository("tiny")
        found = {tag: repository.resolve(tag) for tag in repository.tags() if not is_auxiliary(tag)}
        assert found == self.tags

    @invariant()
    def what_is_not_spoiled_is_whole(self) -> None:
        if not self.spoiled():
            mirror_images.whole(self.mirror)

    @invariant()
    def nothing_is_left_over_and_no_inode_is_shared(self) -> None:
        assert list(self.mirror.place.drafts.iterdir()) == []
        assert all(path.stat().st_nlink == 1 for path in self.files())

    # --- what is seen

    def files(self) -> list[Path]:
        """Blobs and manifests."""
        folder = self.mirror.place.paths("tiny").manifests
        return sorted([*self.mirror.place.blobs.iterdir(), *(folder.iterdir() if folder.is_dir() else ())])

    def spoiled(self) -> list[Path]:
        """Files whose bytes are not what their names say."""
        return [path for path in self.files() if Digest.of(path.read_bytes()).hex != path.name.partition(".")[0]]

    def spoiled_manifests(self) -> bool:
        return any(parse_manifest_path(path) is not None for path in self.spoiled())


MirrorMachine.TestCase.settings = settings(
    max_examples=examples(12), stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestMirror(MirrorMachine.TestCase):  # type: ignore[name-defined,misc]
    """Runs the machine."""
