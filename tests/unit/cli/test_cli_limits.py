"""Publishing and verifying tell which limits were enforced in the test, and which not and why."""

from __future__ import annotations

from pipeline.cli.move_format import limits_as_json
from pipeline.cli.publish_run import published_as_json, published_as_lines
from pipeline.model.publication import Publication
from tests.support.tested_images import evidence, image, loosely_tested


def published(*, loosely: bool) -> Publication:
    found = evidence(image())
    limits = (loosely_tested(found) if loosely else found).limits
    return Publication("dir:m/tiny", found.image, "1.0-x", (), ("latest",), (), (), (), (), limits)


def test_a_test_that_enforced_no_limit_is_not_published_without_a_word() -> None:
    lines = list(published_as_lines(published(loosely=True)))
    assert "  limits enforced in the test: none" in lines
    assert "  ! limits not enforced in the test: memory: not handed over" in lines
    assert "  ! limits not enforced in the test: pids: asked 50, read 99" in lines


def test_limits_that_hold_are_named() -> None:
    lines = list(published_as_lines(published(loosely=False)))
    assert "  limits enforced in the test: memory, pids" in lines
    assert not any("not enforced" in line for line in lines)


def test_the_value_has_each_limit_with_its_reason() -> None:
    done = published(loosely=True)
    said = [
        {"name": "memory", "asked": 64 << 20, "enforced": False, "reason": "not handed over"},
        {"name": "pids", "asked": 50, "enforced": False, "reason": "asked 50, read 99"},
    ]
    assert published_as_json(done)["limits"] == limits_as_json(done.limits) == said
