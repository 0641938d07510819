"""The images of a mirror's tags, as the gate compares them with what is to replace them."""

from __future__ import annotations

from pathlib import Path

from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.release.current_images import current_images
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
