"""Pruning of a directory mirror that has many tags: how long, and whether that grows in a straight line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from turns import OURS, SHARE, BenchFailed, Goal, Section, Session, relbuild, straight

from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images

TAGS = (250, 500, 1000, 2000)
MOST = 1000
"""Of how many the time has a goal."""
KEPT = 10
RULES = f"retention:\n  - {{repositories: '*', keep: {KEPT}}}\ngrace: 1s\n"
BEFORE = 30 * 86_400
"""Seconds that the tags are old."""


def stock(folder: Path, tags: int) -> Path:
    """Make a mirror with so many tags of one product, each of an image of its own."""
    store, now = Store.open(folder / "made"), time.time() - BEFORE
    access = MirrorAccess({}, QUIET, mirror_images.ticking(now), store)
    with access.mirror(parse_address(f"dir:{folder / 'mirror'}"), create=True) as mirror:
        repository = mirror.repository("product")
        for number in range(tags):
            mirror_images.publish(repository, store, mirror_images.image(store, number), f"{number}.0")
    return folder / "mirror"


def measure(session: Session) -> None:
    """Prune a copy of each mirror in each turn."""
    rules = session.folder / "rules.yaml"
    rules.write_text(RULES)
    stocked = {}
    for tags in TAGS:
        folder = session.folder / f"stock-{tags}"
        folder.mkdir()
        stocked[tags] = stock(folder, tags)
    for _ in session.turns():
        for tags, mirror in stocked.items():
            place = session.folder / "pruned"
            shutil.copytree(mirror, place, symlinks=True)
            said: list[str] = []
            words = ("prune", f"dir:{place}", "--rules", rules, "--yes", "--json", "--progress", "none",
                     "--store", session.folder / "store")  # fmt: skip
            session.take(OURS, f"prune of {tags} tags", lambda: said.append(relbuild(*words)))  # noqa: B023
            removed = len(json.loads(said[0])["plan"]["tags"])
            if removed != tags - KEPT:
                raise BenchFailed(f"{removed} of {tags} tags were pruned, not {tags - KEPT}")
            shutil.rmtree(place)
    session.row(f"prune {MOST - KEPT} of {MOST:,} tags", session.of(OURS, f"prune of {MOST} tags"), Goal(1.5), unit="s")
    points = [(float(tags), min(session.of(OURS, f"prune of {tags} tags"))) for tags in TAGS]
    session.curve("prune", "tags", "s", points)
    session.row("prune: farthest from a straight line in tags", [straight(points).off], Goal(0.1), unit=SHARE)


SECTIONS = (Section("prune", "Pruning of many tags", measure, mirror=False),)
