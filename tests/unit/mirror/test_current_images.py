"""The images of a mirror's tags, as the gate compares them with what is to replace them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.release.current_images import current_images, refuse_reserved_tag
from tests.support.published_images import ImagePublisher


def test_they_have_the_platforms_of_all_images_of_an_index(tmp_path: Path) -> None:
    publisher = ImagePublisher.at(tmp_path)
    repository = open_directory(tmp_path / "mirror", create=True, clock=publisher.clock).repository("small")
    arm, intel = publisher.image("1.0", architecture="arm64"), publisher.image("1.0")
    both = publisher.publish(repository, intel, arm)
    publisher.publish(repository, arm, tags=("alone",))
    tags = ("latest", "alone", "missing")
    platforms = {now.tag: now.platforms for now in current_images(repository, tags, publisher.image("2.0").digest)}
    assert platforms == {"latest": {"linux/amd64", "linux/arm64"}, "alone": {"linux/arm64"}}
    assert [now.tag for now in current_images(repository, tags, both.digest)] == ["alone"]


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        *((tag, "tag-reserved: '{}' is a reserved tag name") for tag in ("move.me", "sha256-" + "0" * 64)),
        *((tag, "tag-malformed: '{}' is not a valid tag") for tag in ("my stable", "", ".x", "a/b", "é")),
    ],
)
def test_a_tag_that_no_person_may_give_is_refused_for_what_it_is(tag: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        refuse_reserved_tag(tag)
    problem = raised.value.problems[0]
    assert f"{problem.code}: {problem.message}" == said.format(tag)
    refuse_reserved_tag("stable")
