"""`history` of what is not on a mirror, and of what is there no longer and has records."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.release import history, verify_reference
from tests.support.published_images import ImagePublisher, key
from tests.support.withheld_moves import OLD


@pytest.mark.parametrize("missing", ["helo:latest", "helo", "small:lates"])
def test_a_reference_that_is_missing_is_told_as_verify_does(mirror: Path, maker: ImagePublisher, missing: str) -> None:
    reference = parse_address(f"dir:{mirror}/{missing}")
    with pytest.raises(UsageError, match="reference-missing") as told:
        history(reference, maker.build_env)
    with pytest.raises(UsageError, match="reference-missing") as expected:
        verify_reference(reference, key().public, maker.build_env)
    assert told.value.problems == expected.value.problems


def test_a_tag_that_was_removed_shows_its_records(mirror: Path, maker: ImagePublisher) -> None:
    reference = parse_address(f"dir:{mirror}/small:stable")
    before = history(reference, maker.build_env)
    (mirror / "repositories/small/_tags/stable").unlink()
    after = history(reference, maker.build_env)
    assert [step.past.move for step in after] == [step.past.move for step in before] != []
    assert history(reference, maker.build_env, OLD.public) == (), "the tag had moves, and none by this key"


def test_an_image_without_moves_is_not_missing(mirror: Path, maker: ImagePublisher) -> None:
    digest = maker.image("1.0").digest
    (immutable,) = (path.name for path in (mirror / "repositories/small/_tags").glob("1.0-*"))
    for reference in (f"small:{immutable}", f"small:{immutable}@{digest}"):
        assert history(parse_address(f"dir:{mirror}/{reference}"), maker.build_env) == ()
    assert history(parse_address(f"dir:{mirror}/small@{digest}"), maker.build_env), "those of latest"
    (mirror / "repositories/small/_tags/latest").rename(mirror / "away")
    assert history(parse_address(f"dir:{mirror}/small@{digest}"), maker.build_env), "its records"


def test_a_folder_without_a_mirror_is_told(tmp_path: Path, maker: ImagePublisher) -> None:
    with pytest.raises(UsageError) as raised:
        history(parse_address(f"dir:{tmp_path}/none/small:latest"), maker.build_env)
    problem = raised.value.problems[0]
    assert problem.code == "not-a-mirror"
    assert problem.message == f"neither '{tmp_path}/none/small' nor a folder above it is a mirror"
    assert problem.hint == "write dir:PATH-OF-THE-MIRROR/NAME, with the directory that images were published to"
