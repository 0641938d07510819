"""Cleaning up a mirror that is a directory, also behind a web server."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.directory.directory_prune import prune_directory, undo_prunings
from pipeline.mirror.protocol import is_auxiliary
from pipeline.mirror.references import references
from pipeline.model.manifests import Manifest
from pipeline.model.publication import Move, MoveCause
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.old_records import write_down
from tests.support.patience import HUNG
from tests.support.prunable_mirror import (
    LATER,
    RULES,
    falsely_listed,
    require_whole,
    stocked,
    tagged,
)
from tests.support.sampling import first_step, operations, stride
from tests.support.webserver import nginx

pytestmark = pytest.mark.long


@pytest.fixture
def mirror(tmp_path: Path) -> DirectoryMirror:
    return open_directory(tmp_path / "mirror", create=True, clock=time.time)


def everything(mirror: DirectoryMirror) -> dict[str, bytes | str]:
    """All that is served, byte for byte. (`nginx.conf` names the folder that it is in.)"""
    found = mirror_images.all_files(mirror.place.root)
    aside = ".quarantine/", ".incoming/", "nginx.conf"
    return {path: content for path, content in found.items() if not path.startswith(aside)}


def test_exactly_what_nothing_reaches_goes_and_the_dry_run_says_it_to_the_byte(
    mirror: DirectoryMirror, store: Store
) -> None:
    stock = stocked(mirror, store)
    before = everything(mirror)
    dry = prune_directory(mirror, RULES, LATER, dry_run=True)
    assert everything(mirror) == before
    pruned = prune_directory(mirror, RULES, LATER)
    after = everything(mirror)
    assert pruned.plan == dry.plan
    gone = {path: content for path, content in before.items() if path not in after}
    files = {path: content for path, content in gone.items() if isinstance(content, bytes)}
    assert dry.size == pruned.size == sum(map(len, files.values())) > 3000
    names = " ".join(after)
    assert all(digest.hex in names for digest in stock.stays)
    assert not [digest for digest in stock.goes | stock.unlisted | stock.orphans if digest.hex in names]
    assert mirror.repository("other/product").tags() == ()
    assert {tag for tag in mirror.repository("product").tags() if not is_auxiliary(tag)} == {"9.7", "stable"}
    require_whole(mirror.repository("product"))
    again = prune_directory(mirror, RULES, LATER)
    assert again.plan.empty and not again.stamp and again.size == 0
    assert everything(mirror) == after


def test_undoing_brings_everything_back_byte_for_byte(mirror: DirectoryMirror, store: Store) -> None:
    stocked(mirror, store)
    for tag in (mirror.place.root / "repositories" / "product" / "_tags").iterdir():
        os.utime(tag, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    before, held = everything(mirror), mirror.inventory()
    first = prune_directory(mirror, RULES, LATER)
    undone = undo_prunings(mirror, first.stamp)
    assert everything(mirror) == before
    assert undone.stamps == (first.stamp,) and not undone.left
    assert [repository.tags for repository in mirror.inventory().repositories] == [
        repository.tags for repository in held.repositories
    ]
    second = prune_directory(mirror, RULES, LATER)
    assert second.plan == first.plan and second.size == first.size


def test_undoing_an_earlier_pruning_undoes_those_after_it(mirror: DirectoryMirror, store: Store) -> None:
    stocked(mirror, store)
    before = everything(mirror)
    first = prune_directory(mirror, RULES, LATER)
    second = prune_directory(mirror, MirrorRules(retention=(RetentionRule(tags="stable", keep=0),)), LATER)
    assert undo_prunings(mirror, first.stamp).stamps == (second.stamp, first.stamp)
    assert everything(mirror) == before


def test_a_tag_that_was_set_again_meanwhile_is_left_when_undoing(mirror: DirectoryMirror, store: Store) -> None:
    stocked(mirror, store)
    product = mirror.repository("product")
    pruned = prune_directory(mirror, RULES, LATER)
    new = mirror_images.publish(product, store, mirror_images.image(store, 77), "old-1")
    undone = undo_prunings(mirror, pruned.stamp)
    assert undone.left == (("product", "old-1"),)
    assert product.resolve("old-1") == new.digest
    require_whole(product)


def test_a_list_of_referrers_is_written_without_what_goes_and_undoing_keeps_what_was_attached_since(
    mirror: DirectoryMirror, store: Store
) -> None:
    product = mirror.repository("product")
    whole = mirror_images.publish(product, store, mirror_images.image(store, 1), "9.7")
    false = falsely_listed(product, whole.digest)
    note = mirror_images.attach(product, whole.descriptor, "stays")
    before = everything(mirror)
    dry = prune_directory(mirror, MirrorRules(), LATER, dry_run=True)
    pruned = prune_directory(mirror, MirrorRules(), LATER)
    assert dry.plan == pruned.plan and dry.size == pruned.size > len(false.data)
    assert [one.descriptor.digest for one in product.referrers(whole.digest)] == [note.digest]
    assert product.manifest(false.digest) is None
    undo_prunings(mirror, pruned.stamp)
    assert everything(mirror) == before
    pruned = prune_directory(mirror, MirrorRules(), LATER)
    new = mirror_images.attach(product, whole.descriptor, "attached since")
    undo_prunings(mirror, pruned.stamp)
    assert {one.descriptor.digest for one in product.referrers(whole.digest)} == {note.digest, new.digest, false.digest}


def test_a_list_that_comes_out_as_one_that_was_there_before_stays(mirror: DirectoryMirror, store: Store) -> None:
    product = mirror.repository("product")
    whole = mirror_images.publish(product, store, mirror_images.image(store, 1), "9.7")
    note = mirror_images.attach(product, whole.descriptor, "stays")
    falsely_listed(product, whole.digest)
    dry = prune_directory(mirror, MirrorRules(), LATER, dry_run=True)
    assert prune_directory(mirror, MirrorRules(), LATER).size == dry.size
    assert [one.descriptor.digest for one in product.referrers(whole.digest)] == [note.digest]
    assert prune_directory(mirror, MirrorRules(), LATER).plan.empty


def test_what_is_young_is_spared_and_so_is_what_a_tag_pointed_to_a_moment_ago(
    mirror: DirectoryMirror, store: Store
) -> None:
    stock = stocked(mirror, store)
    now = int(time.time())
    pruned = prune_directory(mirror, RULES, now)
    assert not pruned.plan.manifests and not pruned.plan.blobs and pruned.size == 0
    assert {one.tag for one in pruned.plan.tags} == {"old", "old-1", "old-index"}
    undo_prunings(mirror, pruned.stamp)
    product = mirror.repository("product")
    whole = product.manifest("old-1")
    assert whole is not None
    left = whole.digest
    kept = product.resolve("9.7")
    assert kept is not None
    write_down(product, Move("latest", left, kept, (LATER - 60) * 1000, MoveCause.PUBLISH))
    pruned = prune_directory(mirror, RULES, LATER)
    assert product.manifest(left) is not None
    went = {one.digest for one in (*pruned.plan.manifests, *pruned.plan.blobs)}
    kept_back = {left, *(blob.digest for blob in references(whole).blobs)}
    assert went & (stock.goes | kept_back) == stock.goes - kept_back


def test_quarantine_is_emptied_when_its_time_is_over(mirror: DirectoryMirror, store: Store) -> None:
    stocked(mirror, store)
    pruned = prune_directory(mirror, RULES, LATER)
    prune_directory(mirror, RULES, LATER + RULES.quarantine - 5)
    folder = mirror.place.root / ".quarantine"
    assert (folder / pruned.stamp).is_dir()
    prune_directory(mirror, RULES, LATER + RULES.quarantine + 5)
    assert not any(folder.iterdir())
    with pytest.raises(UsageError) as caught:
        undo_prunings(mirror, pruned.stamp)
    assert caught.value.code == "quarantine-unknown"


def test_publications_are_waited_for_and_then_the_operator_is_told(mirror: DirectoryMirror, store: Store) -> None:
    stocked(mirror, store)
    before = everything(mirror)
    with mirror.writing(), pytest.raises(EnvironmentLacking) as caught:
        prune_directory(mirror, RULES, LATER, timeout=0.2)
    assert caught.value.code == "mirror-busy"
    assert everything(mirror) == before


# --- killed ---------------------------------------------------------------------------------------------------


STRIDE = 5
"""Every so many changes to the file system, from a drawn one on; all with `RELBUILD_SOAK`."""


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process that kills itself just before the `step`th change to the file system; True if it came to
    that."""
    child = os.fork()
    if child == 0:
        _work_and_die(step, work)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def _work_and_die(step: int, work: Callable[[], object]) -> NoReturn:
    count = 0
    for name in ("rename", "replace", "unlink", "mkdir", "rmdir", "symlink"):
        original = getattr(os, name)

        def counted(*arguments: object, _original: Callable[..., object] = original, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return _original(*arguments, **named)

        setattr(os, name, counted)
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_killed_at_each_step_and_run_again_it_is_as_if_never_killed(tmp_path: Path, store: Store) -> None:
    clock = lambda: 1_700_000_000.0  # noqa: E731
    mirror = open_directory(tmp_path / "first", create=True, clock=clock)
    stocked(mirror, store)
    product = mirror.repository("product")
    signed = product.manifest("9.7")
    assert signed is not None
    falsely_listed(product, signed.digest)
    mirror_images.attach(product, signed.descriptor, "attached after that")
    before = everything(mirror)

    def another(name: str) -> DirectoryMirror:
        shutil.copytree(tmp_path / "first", tmp_path / name, symlinks=True)
        return open_directory(tmp_path / name, create=False, clock=clock)

    model = another("model")
    full = prune_directory(model, RULES, LATER)
    wanted = everything(model)
    (relisting,) = full.plan.relisted
    tag = f"repositories/product/_tags/{relisting.tag}"
    anew = {tag: "", f"repositories/product/_manifests/{Path(str(wanted[tag])).name}": ""}
    step = first_step("kill a pruning", STRIDE)
    while True:
        mirror = another(f"killed-{step}")
        if not killed_at(step, functools.partial(prune_directory, mirror, RULES, LATER)):
            break
        require_whole(mirror.repository("product"))
        prune_directory(mirror, RULES, LATER)
        assert everything(mirror) == wanted, step
        with mirror.pruning(5) as pruning:
            known = pruning.quarantined()
        assert sum(one.size for one in known) == full.size
        undo_prunings(mirror, known[0].stamp)
        # A list that was written anew before anything was written down stays so: what it lacks spoke of nothing.
        assert everything(mirror) | anew == before | anew, step
        shutil.rmtree(mirror.place.root)
        step += stride(STRIDE)
    assert step > 30


# --- pulled meanwhile -----------------------------------------------------------------------------------------


GRACE = 4
"""Seconds in which what a tag pointed to stays."""


class Puller(threading.Thread):
    """Pulls by a tag through a web server, again and again: manifest, config, layers, what speaks of it.

    A pull that takes longer than the grace may lack something, and counts as none.
    """

    def __init__(self, host: str, name: str, tag: str) -> None:
        super().__init__()
        self.host, self.name_, self.tag = host, name, tag
        self.pulled: dict[str, int] = {}
        self.problems: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=HUNG)
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                self._pull(connection)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                if time.monotonic() - begun < GRACE - 1:  # Both ends of it are told in whole seconds.
                    self.problems.append(repr(error))
                    return
        connection.close()

    def _get(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        connection.request("GET", f"/v2/{self.name_}/{path}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, f"{path}: {answer.status}"
        return body

    def _pull(self, connection: http.client.HTTPConnection) -> None:
        top = Manifest(mirror_images.media_types.MANIFEST, self._get(connection, f"manifests/{self.tag}"))
        said = references(top)
        for blob in said.blobs:
            assert Digest.of(self._get(connection, f"blobs/{blob.digest}")) == blob.digest
        index = Manifest(mirror_images.media_types.INDEX, self._get(connection, f"referrers/{top.digest}"))
        spoken = references(index).manifests
        assert spoken, f"{top.digest} is not signed"
        for one in spoken:
            assert Digest.of(self._get(connection, f"manifests/{one.digest}")) == one.digest
        self.pulled[str(top.digest)] = self.pulled.get(str(top.digest), 0) + 1


@contextlib.contextmanager
def pulling(host: str, name: str, tag: str) -> Iterator[list[Puller]]:
    pullers = [Puller(host, name, tag) for _ in range(2)]
    for one in pullers:
        one.start()
    try:
        yield pullers
    finally:
        for one in pullers:
            one.over.set()
            one.join()


def test_who_pulls_while_much_is_published_pruned_and_brought_back_always_gets_all(
    mirror: DirectoryMirror, store: Store, tmp_path: Path
) -> None:
    product = mirror.repository("product")
    rules = MirrorRules(retention=(RetentionRule(tags="v*", keep=2),), grace=GRACE, quarantine=6)

    def publish(number: int) -> None:
        before = product.resolve("latest")
        with mirror.writing():
            whole = mirror_images.put(product, store, mirror_images.image(store, number))
            mirror_images.attach(product, whole.descriptor, f"signature of {number}")
            tagged(product, f"v{number}", whole)
            write_down(product, Move("latest", before, whole.digest, int(time.time() * 1000), MoveCause.PUBLISH))
            tagged(product, "latest", whole)

    publish(0)
    gone = 0
    with nginx(mirror.place.root, tmp_path / "nginx") as host, pulling(host, "product", "latest") as pullers:
        for number in range(1, operations(60) + 1):
            publish(number)
            pruned = prune_directory(mirror, rules, int(time.time()))
            gone += len(pruned.plan.manifests)
            if number % 20 == 0 and pruned.stamp:
                undo_prunings(mirror, pruned.stamp)
            time.sleep(0.1)
    assert [one.problems for one in pullers] == [[], []]
    assert gone > 25
    assert min(sum(one.pulled.values()) for one in pullers) > 50
    assert min(len(one.pulled) for one in pullers) > 10
    require_whole(product)
