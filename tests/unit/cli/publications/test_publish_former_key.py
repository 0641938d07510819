"""A person who changed the key publishes to a mirror that was restored: who verifies with both keys accepts the tag."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.commands import publish as publish_command
from pipeline.errors import RelbuildError
from pipeline.oci import load_signing_key
from pipeline.release import verify_reference
from tests.support.moved_tags import at, opened
from tests.support.published_images import key
from tests.support.published_twice import Publisher
from tests.support.repeated_publisher import RepeatedPublisher
from tests.support.signing_examples import PRIVATE

OLD, NEW = key(3), load_signing_key(PRIVATE)
BOTH = replace(NEW.public, former=(OLD.public,))


def former_key(folder: Path) -> tuple[str, str]:
    path = folder / "former.pub"
    path.write_bytes(OLD.public.pem)
    return "--former-key", str(path)


def test_a_number_beyond_those_of_the_former_key_is_signed_where_that_is_named(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    publisher = RepeatedPublisher(tmp_path, f"dir:{mirror}")
    publisher.build()
    maker = publisher.maker
    for version in ("0.1", "0.2", "0.3"):
        maker.publish(opened(mirror, maker), maker.image(version), signer=OLD)
        if version == "0.1":
            shutil.copytree(mirror, tmp_path / "backup", symlinks=True)
    shutil.rmtree(mirror)
    (tmp_path / "backup").rename(mirror)

    def verdict() -> str:
        try:
            return verify_reference(at(mirror), BOTH, maker.build_env).held.version
        except RelbuildError as error:
            return str(error)

    assert publisher.publish()[0] == 0
    assert verify_reference(at(mirror), NEW.public, maker.build_env).held.version == "1.0"
    # The new key knows of no number but those that the mirror shows.
    assert "[moves-rolled-back]" in verdict() and "with --former-key where the key was changed" in verdict()
    status, answer, said = publisher.publish(*former_key(tmp_path))
    assert (status, answer["moved"]) == (0, []), said
    assert verdict() == "1.0"


def test_a_publication_with_a_former_key_is_made_in_the_ordinary_way(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered tells nothing of the former key."""
    monkeypatch.setattr(publish_command, "repeat_publication", lambda *_: ({"repository": "remembered"},))
    assert publisher.recognised()
    assert not publisher.recognised(*former_key(publisher.folder))


def test_a_former_key_that_is_none_is_refused_before_anything_is_published(tmp_path: Path) -> None:
    publisher = RepeatedPublisher(tmp_path, f"dir:{tmp_path / 'mirror'}")
    publisher.build()
    status, _, said = publisher.publish("--former-key", str(tmp_path / "missing.pub"))
    assert status == 2 and "missing.pub" in said, said
    assert not (tmp_path / "mirror").exists()
