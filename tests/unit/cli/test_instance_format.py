"""What `ps` shows of instances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.instance_format import duration_text, instance_as_json, instance_lines, limit_text, state_text
from pipeline.digest import Digest
from pipeline.instances import InstanceFolder, InstancePhase, InstanceRecord, InstanceState
from pipeline.model.limit import LimitReading
from pipeline.model.published_port import PublishedPort

RECORD = InstanceRecord(
    name="cache",
    product="redis",
    version="8.0.2",
    digest=Digest.of(b"image"),
    subject="redis",
    started=100_000,
    detached=True,
    phase=InstancePhase.RUNNING,
    ports=(PublishedPort(18080, 6379),),
    limits=(
        LimitReading("memory", 1 << 28, 1 << 28, True),
        LimitReading("cpus", 500, None, False, "no groups"),
        LimitReading("tmpfs", 1 << 26, 1 << 26, True),
    ),
    changes=("maxmemory=64mb",),
)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (7_300, "2 h"), (200_000, "2 d")]
)
def test_a_duration_is_in_the_largest_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_limits_are_written_as_in_a_recipe() -> None:
    readings = [
        *RECORD.limits,
        LimitReading("bandwidth", 10_000_000, 10_000_000, True),
        LimitReading("volume /data", 1 << 32, None, False),
    ]
    texts = [limit_text(reading) for reading in readings]
    assert texts[:2] == ["memory 256MiB", "cpus 0.5 (not enforced)"]
    assert texts[2:] == ["tmpfs 64MiB", "bandwidth 10mbit", "volume /data 4GiB (not enforced)"]


@pytest.mark.parametrize(
    ("change", "state", "text"),
    [
        ({"phase": InstancePhase.STARTING}, InstanceState.STARTING, "starting"),
        ({}, InstanceState.RUNNING, "running for 20 s"),
        (
            {"phase": InstancePhase.EXITED, "exit_code": 3, "ended": 110_000},
            InstanceState.EXITED,
            "exited (3) 10 s ago",
        ),
        ({}, InstanceState.DEAD, "dead: its supervisor was killed"),
        ({"phase": InstancePhase.STARTING}, InstanceState.DEAD, "dead: it was not started"),
    ],
)
def test_a_state_is_told_with_its_time(change: dict[str, object], state: InstanceState, text: str) -> None:
    assert state_text(replace(RECORD, **change), state, 120.0) == text  # type: ignore[arg-type]


def test_the_table_shows_what_is_known_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    found = [(InstanceFolder(tmp_path / "cache"), RECORD), (InstanceFolder(tmp_path / "odd"), None)]
    assert instance_lines(found, 120.0) == (
        "NAME   PRODUCT      STATE                               PORTS",
        "cache  redis 8.0.2  dead: its supervisor was killed     18080 → 6379",
        f"  {RECORD.digest.short}  redis",
        "  with changes: maxmemory=64mb",
        "odd    ?            unknown: its record cannot be read",
    )


def test_programs_get_the_whole_record_with_its_state(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    value = instance_as_json(InstanceFolder(tmp_path / "cache"), RECORD)
    assert (value["state"], value["supervisor"], value["files"]) == ("dead", None, None)
    assert value["changes"] == ["maxmemory=64mb"] and value["ports"] == [{"host": 18080, "container": 6379}]
    assert instance_as_json(InstanceFolder(tmp_path / "odd"), None) == {"name": "odd", "state": None}


def test_no_text_of_an_image_makes_a_line_of_its_own(tmp_path: Path) -> None:
    foreign = replace(RECORD, product="a\nb\x1b[2J", subject="c\nd", changes=("edited /e\nf",))
    lines = instance_lines([(InstanceFolder(tmp_path / "cache"), foreign)], 100.0)
    assert not any(character in line for line in lines for character in "\n\x1b")
    assert "a\\nb\\x1b[2J" in lines[1]
