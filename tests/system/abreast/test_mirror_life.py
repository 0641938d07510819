"""A mirror while it is lived with: pulled from during publications, rollbacks and prunings, published to by two at the
same time, and by publishers that are killed at every step. On both kinds of mirror, with the whole of a publication.

`RELBUILD_SOAK=N` sets how many operations the long test does on each kind (default: `OPERATIONS`), and has publishers
killed at every single step of a publication (default: every so many, from one on that the run's seed draws: `STRIDES`).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.build import BuildResult
from pipeline.digest import Digest
from pipeline.mirror.protocol import is_auxiliary
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_statements import MOVE_ANNOTATION_PREFIX, anchor_manifest
from pipeline.oci.predicates import MOVE
from tests.support.killed_publisher import Publisher, Task, perform, publisher
from tests.support.mirror_life import (
    IMAGES,
    TAGS,
    Site,
    believed,
    history_of,
    lived,
    publication,
    served,
    whole_by_every_tag,
)
from tests.support.product_builds import SmallProducts, small_products
from tests.support.rpm_factory import Forge
from tests.support.sampling import SEED, first_step, operations, stride

pytestmark = pytest.mark.long

KINDS = ("directory", "registry")
OPERATIONS = {"directory": 96, "registry": 10}
"""On each kind, at the same time: what fits into half a minute on two cores. `ci/torture mirror` does thousands."""

ROUNDS = 5
STRIDES = {"directory": 54, "registry": 135}
"""A publication has hundreds of steps: only every so many are tried, others each time, unless there is time for all."""
SHORT_STRIDES = {"directory": 9, "registry": 27}
"""And of the tens of steps of a promotion and a rollback. `ci/faults` tries each call of all of them."""


@pytest.fixture(scope="module")
def quick() -> Iterator[Path]:
    """A folder in memory where there is one: mirrors are made and removed here hundreds of times, and what a crash of
    the machine leaves is not what these tests are about."""
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="relbuild-life-", dir=base if os.access(base, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def folder(quick: Path) -> Iterator[Path]:
    """A test's own."""
    with tempfile.TemporaryDirectory(dir=quick) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def products(quick: Path, made: Forge) -> SmallProducts:
    """Where small products are built."""
    return small_products(quick / "products", made)


@pytest.fixture(scope="module")
def images(products: SmallProducts) -> list[BuildResult]:
    """Images of one product that differ."""
    return [products.build(f"1.{number}", note="x" * number) for number in range(IMAGES)]


# --- pulled from while it changes ----------------------------------------------------------------------


def test_who_pulls_during_publishing_rolling_back_and_pruning_always_gets_a_whole_signed_image(
    images: list[BuildResult], products: SmallProducts, folder: Path
) -> None:
    """What a tag pointed to moments ago is in its grace (`killed_publisher.GRACE`), so also a client that is in the
    middle of its pull when a tag moves on and the rest is pruned gets all of it."""

    def live(kind: str) -> None:
        count = operations(OPERATIONS[kind])
        with served(kind, folder / kind, products.build_env) as site:
            began = time.monotonic()
            life = lived(site, images, count, SEED, folder)
            seconds, found = time.monotonic() - began, life.found
            assert life.wrong == []
            for one in found:
                assert one.incomplete == (), (SEED, one.incomplete)
            pulls, changes = sum(one.pulls for one in found), sum(one.changes for one in found)
            asked_again, late = (sum(getattr(one, what) for one in found) for what in ("unanswered", "late"))
            print(
                f"{kind}: {count} operations in {seconds:.0f} s: {dict(sorted(life.done.items()))}; {pulls} pulls, "
                f"of which {found[-1].pulls} by skopeo, saw {max(one.images for one in found)} images and {changes} "
                f"changes; none incomplete; {late} too slow; {asked_again} requests answered 5xx and asked again"
            )
            assert life.done.total() - life.done["prune beside"] == count
            assert changes > count / 4 and min(one.pulls for one in found) > 0
            with site.repository() as repository:
                immutable = [tag for tag in repository.tags() if not is_auxiliary(tag) and tag not in TAGS]
                for tag in (*TAGS, *immutable):
                    site.puller().pull(tag)
            assert count < 300 or len(immutable) < IMAGES, "nothing was ever pruned"

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(live, KINDS))


# --- two at the same time ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_publishers_on_one_tag_one_wins_and_nothing_is_lost(
    kind: str, images: list[BuildResult], products: SmallProducts, folder: Path
) -> None:
    overtaken = 0
    untold: list[str] = []
    with (
        served(kind, folder / kind, products.build_env) as site,
        publisher(products.build_env, folder) as one,
        publisher(products.build_env, folder) as other,
    ):
        one.do(publication(site, images[0], *TAGS))
        for round_ in range(ROUNDS):
            pair = (images[(2 * round_) % IMAGES], images[(2 * round_ + 1) % IMAGES])
            before = site.puller().digest("latest")
            for worker, image in zip((one, other), pair, strict=True):
                worker.begin(publication(site, image, *TAGS))
            outcomes = one.end(), other.end()
            wanted = [str(image.image.digest) for image in pair]
            for outcome in outcomes:
                assert (outcome.code, outcome.exit_code) in {("", 0), ("tag-overtaken", 7)}, outcome
            codes = [outcome.code for outcome in outcomes]
            overtaken += sum(map(bool, codes))
            assert kind == "registry" or not any(codes)
            with site.repository() as repository:
                names = [tag for tag in repository.tags() if not is_auxiliary(tag) and "-" in tag]
                immutable = {str(repository.resolve(tag)) for tag in names}
            assert set(wanted) <= immutable
            for tag in TAGS:
                assert site.puller().digest(tag) in wanted
                past = history_of(site, tag)
                happened = [each.move for each in past if each.happened]
                assert str(happened[-1].after) == site.puller().digest(tag)
                assert all(later.before == earlier.after for earlier, later in itertools.pairwise(happened))
                written = {str(each.move.after) for each in past}
                assert {digest for digest in wanted if digest != before} <= written
                numbers = [each.number for each in past if each.happened]
                assert numbers == sorted(set(numbers))
                made = {str(move.after) for move in happened[-2:]} | {before}
                untold += [
                    digest for digest, code in zip(wanted, codes, strict=True) if not code and digest not in made
                ]
            for digest in wanted:
                site.puller().pull(digest)
            believed(site)
    print(f"\n{kind}: {ROUNDS} rounds, {overtaken} publishers told that they were overtaken; {len(untold)} not told")
    # A registry cannot rule it out: one who is slower than all the other's pause overwrites what that one looked at.
    assert len(untold) <= (1 if kind == "registry" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_publishers_of_one_image_with_keys_of_their_own_no_signature_is_lost(
    kind: str, images: list[BuildResult], products: SmallProducts, folder: Path
) -> None:
    with (
        served(kind, folder / kind, products.build_env) as site,
        publisher(products.build_env, folder) as one,
        publisher(products.build_env, folder) as other,
    ):
        for image in images[:ROUNDS]:
            for number, worker in enumerate((one, other)):
                worker.begin(publication(site, image, "latest", number=number))
            for outcome in (one.end(), other.end()):
                assert not outcome.code, outcome
            assert site.puller(0, 1).pull("latest") == str(image.image.digest)


# --- killed --------------------------------------------------------------------------------------------


def state(site: Site) -> Mapping[str, object]:
    """All that a mirror holds and that does not differ from run to run: signed moves are told by the history (some tell
    of moves that were not made), and what a killed process has in hand (drafts, uploads that were begun) is nobody's.
    Which signed statement is the newest of each tag is told by verifying them."""
    with site.repository() as repository:
        tags = repository.tags()
        pulled = [tag for tag in tags if not is_auxiliary(tag)]
        lists = {f"sha256-{anchor_manifest(repository.identity, tag).digest.hex}" for tag in pulled}
        history = {
            tag: [
                (one.move.before, one.move.after, one.move.why) for one in read_history(repository, tag) if one.happened
            ]
            for tag in pulled
        }
    return {"tags": [tag for tag in tags if tag not in lists], "history": history, "files": _files(site.data, lists)}


def _files(root: Path, lists: Collection[str]) -> dict[str, bytes | str]:
    """What stands below a folder, but for signed moves, their bundles and the lists of them (tags: `lists`)."""
    found: dict[str, bytes | str] = {}
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in {".lock", ".incoming", ".scrub", "_uploads", *lists}]
        for name in names:
            path = Path(folder) / name
            if name in lists:
                continue
            if path.is_symlink():
                found[str(path)] = str(path.readlink())
            elif name == "_tags.json":
                listed = json.loads(path.read_bytes())["tags"]
                found[str(path)] = " ".join(tag for tag in listed if tag not in lists)
            elif name != "_lock":
                found[str(path)] = path.read_bytes()
    moves: set[str] = set()
    for data in found.values():
        if isinstance(data, bytes) and (MOVE_ANNOTATION_PREFIX.encode() in data or _is_move(data)):
            moves.add(Digest.of(data).hex)
    return {path: data for path, data in found.items() if not any(one in path for one in moves)}


def _is_move(data: bytes) -> bool:
    """Is it the bundle of a signed move? One who was killed leaves some that nothing refers to."""
    if b'"dsseEnvelope"' not in data[:200]:
        return False
    return MOVE.encode() in base64.b64decode(json.loads(data)["dsseEnvelope"]["payload"])


def killed_at_each_step(site: Site, worker: Publisher, task: Task, saved: Path | None, every: int = 1) -> int:
    """Do it once to the end; then killed at each step and run again: it must come out the same. Returns about how
    many steps there are. `every`: only every so many are tried, from a drawn one on."""
    site.restore(saved)
    perform(task, site.build_env)
    wanted = state(site)
    step = first_step(f"{task.do} {site.kind}", every)
    while True:
        site.restore(saved)
        outcome = worker.do(Task(task.do, task.what, task.to, task.tags, task.signer, kill_at=step))
        assert not outcome.code, outcome
        whole_by_every_tag(site)
        believed(site)
        perform(task, site.build_env)
        believed(site)
        found = state(site)
        assert found == wanted, (task, step, _differences(found, wanted))
        if not outcome.killed:
            return step - 1
        step += stride(every)


def _differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    parts = [part for part in ("tags", "history") if found.get(part) != wanted.get(part)]
    said = [f"{part}: {found.get(part)} is not {wanted.get(part)}" for part in parts]
    one, other = found.get("files"), wanted.get("files")
    assert isinstance(one, dict) and isinstance(other, dict)
    return said + [f"{name}" for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_each_step_and_run_again_a_mirror_is_as_if_never_killed(
    kind: str, images: list[BuildResult], products: SmallProducts, folder: Path
) -> None:
    first, second = images[:2]
    every, short, steps = STRIDES[kind], SHORT_STRIDES[kind], {}
    with served(kind, folder / kind, products.build_env) as site, publisher(products.build_env, folder) as worker:
        publish = publication(site, first, "latest", "stable")
        steps["first publication"] = killed_at_each_step(site, worker, publish, None, every)
        one = site.save(folder / "one")
        publish = publication(site, second, "latest", "stable")
        steps["publication"] = killed_at_each_step(site, worker, publish, one, every)
        both = site.save(folder / "both")
        promotion = Task("promote", f"{site.reference}:latest", "edge")
        steps["promotion"] = killed_at_each_step(site, worker, promotion, both, short)
        # Last: whoever has seen the tag moved on refuses a mirror that is put back to what it was.
        rollback = Task("rollback", f"{site.reference}:latest", str(first.image.digest))
        steps["rollback"] = killed_at_each_step(site, worker, rollback, both, short)
    print(f"\n{kind}: killed at each of the steps {steps}")
    assert min(steps.values()) >= 3 and steps["publication"] > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_is_killed_at_each_step_and_run_again_is_as_if_never_killed(
    kind: str, images: list[BuildResult], products: SmallProducts, folder: Path
) -> None:
    with (
        served("directory", folder / "source", products.build_env) as source,
        served(kind, folder / kind, products.build_env) as site,
        publisher(products.build_env, folder) as worker,
    ):
        perform(publication(source, images[0], "latest"), products.build_env)
        perform(publication(site, images[1], "latest"), products.build_env)
        saved = site.save(folder / "saved")
        task = Task("copy", f"{source.reference}:latest", site.reference)
        steps = killed_at_each_step(site, worker, task, saved, STRIDES[kind])
    print(f"\n{kind}: killed at each of {steps} steps of a copy")
    assert steps > 25
