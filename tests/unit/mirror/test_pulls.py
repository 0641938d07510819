"""What access logs tell of pulls, and what an operator's rule makes of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.mirror.retention.access_log import read_pulls, with_pulls
from pipeline.mirror.retention.pruning import (
    HeldManifest,
    HeldRepository,
    HeldTag,
    Inventory,
)
from pipeline.mirror.retention.pruning_plan import plan_pruning
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.oci import media_types

DAY = 86_400
BEGUN = 1_795_500_000  # 2026-11-24 06:00:00 UTC
OLD, PINNED = Digest("a" * 64), Digest("b" * 64)

LINES = f"""\
10.0.0.1 - - [24/Nov/2026:06:00:00 +0000] "GET / HTTP/1.1" 404 10 "-" "curl"
10.0.0.1 - - [24/Nov/2026:08:00:00 +0200] "GET /v2/team/app/manifests/1.0 HTTP/1.1" 200 500 "-" "podman"
10.0.0.1 - - [25/Nov/2026:06:00:00 +0000] "HEAD /v2/team/app/manifests/1.0 HTTP/1.1" 200 0 "-" "podman"
10.0.0.1 - - [25/Nov/2026:06:00:00 +0000] "GET /v2/team/app/manifests/2.0 HTTP/1.1" 404 0 "-" "podman"
10.0.0.1 - - [26/Nov/2026:06:00:00 +0000] "GET /v2/team/app/manifests/{PINNED} HTTP/1.1" 200 9 "-" "podman"
10.0.0.1 - - [26/Nov/2026:06:00:00 +0000] "PUT /v2/team/app/manifests/3.0 HTTP/1.1" 201 9 "-" "podman"
\x00\xff no line of a log
"""


def log(folder: Path) -> Path:
    path = folder / "access.log"
    path.write_bytes(LINES.encode("latin-1"))
    return path


def test_the_last_pull_counts_by_tag_or_by_digest(tmp_path: Path) -> None:
    pulls = read_pulls([log(tmp_path)])
    assert pulls.since == BEGUN
    assert pulls.of("team/app", HeldTag("1.0", OLD)) == BEGUN + DAY
    assert pulls.of("team/app", HeldTag("9-20261124", PINNED)) == BEGUN + 2 * DAY


def test_what_was_refused_or_pushed_is_no_pull(tmp_path: Path) -> None:
    pulls = read_pulls([log(tmp_path)])
    assert pulls.of("team/app", HeldTag("2.0", OLD)) == BEGUN
    assert pulls.of("team/app", HeldTag("3.0", OLD)) == BEGUN


def test_rotated_logs_and_the_namespace_of_a_registry(tmp_path: Path) -> None:
    older = tmp_path / "access.log.1.gz"
    older.write_bytes(
        gzip.compress(b'x - - [01/Nov/2026:00:00:00 +0000] "GET /v2/team/app/manifests/0.9 HTTP/1.1" 200 1\n')
    )
    pulls = read_pulls([log(tmp_path), older], "team")
    assert pulls.since == BEGUN - 23 * DAY - 6 * 3600
    assert pulls.of("app", HeldTag("0.9", OLD)) == pulls.since
    assert pulls.of("app", HeldTag("1.0", OLD)) == BEGUN + DAY


@pytest.mark.parametrize(("within", "goes"), [(12 * 3600, {"1.0", "2.0"}), (2 * DAY, {"2.0"}), (9 * DAY, set())])
def test_a_rule_lets_go_what_was_not_pulled_and_keeps_what_a_short_log_cannot_tell(
    tmp_path: Path, within: int, goes: set[str]
) -> None:
    tags = tuple(HeldTag(name, OLD, set_at=0) for name in ("1.0", "2.0"))
    manifests = (HeldManifest(OLD, media_types.MANIFEST, 10, since=0),)
    held = with_pulls(Inventory((HeldRepository("team/app", tags, manifests),), ()), read_pulls([log(tmp_path)]))
    rules = MirrorRules(retention=(RetentionRule(pulled_within=within),))
    plan = plan_pruning(held, rules, BEGUN + 2 * DAY + 1000)
    assert {one.tag for one in plan.tags} == goes


def test_a_log_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("nothing of the kind\n")
    with pytest.raises(UsageError) as refused:
        read_pulls([empty])
    assert refused.value.code == "log-empty"
    with pytest.raises(UsageError) as missing:
        read_pulls([tmp_path / "missing"])
    assert missing.value.code == "log-unreadable"
