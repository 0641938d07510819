"""A mirror whose own folder all users share, as a tmpfs or a volume, is one user's; others can read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory import mirror_marker
from pipeline.mirror.backends.directory.directory_address_form import MARKER, find_root
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.model.rules import MirrorRules
from pipeline.release import promote, rules_for, verify_reference
from tests.support.journal import Told
from tests.support.other_owners import OTHER, Give, publish, refused
from tests.support.published_images import RULES, ImagePublisher, key


@pytest.fixture
def volume(shared: Path, maker: ImagePublisher, give: Give) -> Path:
    """A mirror of another user in a folder that all share."""
    publish(shared, maker)
    for name in (MARKER, "blobs", "repositories", ".lock", ".incoming"):
        give(OTHER, shared / name)
    return shared


def test_others_read_a_mirror_that_is_one_users_in_a_shared_folder(
    volume: Path, maker: ImagePublisher, give: Give
) -> None:
    reference = parse_address(f"dir:{volume}/small:latest")
    verify_reference(reference, key().public, maker.build_env)
    served = reference.form.pull_source(volume, maker.clock)
    assert served is not None and served.names() == ("small",)
    give(os.geteuid(), volume / "blobs")  # who else put something there?
    with pytest.raises(UsageError, match="not-a-mirror") as caught:
        verify_reference(reference, key().public, maker.build_env)
    assert f"'{volume / MARKER}' of uid {OTHER} does not count in a folder that all users share" in str(caught.value)


def test_others_do_not_publish_to_it(volume: Path, maker: ImagePublisher) -> None:
    assert f"'{volume / MARKER}' belongs to uid {OTHER}" in refused(volume, maker)
    with pytest.raises(UsageError, match="mirror-not-own"):  # exchanged after the first look
        mirror_marker.require_own_host(volume, "localhost")
    with pytest.raises(UsageError, match=f"{MARKER}.*mirror-not-own"):
        promote(parse_address(f"dir:{volume}/small:latest"), "stable", key(), RULES, maker.build_env)


def test_what_is_read_there_is_no_mirror_of_what_is_made_in_it(volume: Path, maker: ImagePublisher) -> None:
    """Anybody can make a whole mirror in /tmp, and its rules."""
    (volume / "rules.yaml").write_text("grace: 1s\n")
    assert find_root(volume / "job" / "small") is None
    told = Told()
    access = MirrorAccess({}, told, maker.clock, maker.store)
    address = parse_address(f"dir:{volume}/job/mirror/small")
    assert rules_for(address, signs=True) == MirrorRules()
    with access.repository(address, create=True, write=True) as repository:
        maker.publish(repository, maker.image("1.0"))
    (warned,) = told.warnings
    assert f"'{volume / MARKER}' of uid {OTHER} does not count" in warned and f"'{volume}/job/mirror'" in warned
    assert find_root(volume / "job" / "mirror" / "small") == (volume / "job" / "mirror", "small")


def test_the_rules_of_its_owner_hold_for_whoever_names_it(volume: Path, give: Give) -> None:
    """root prunes it by them."""
    (volume / "rules.yaml").write_text("grace: 2d\n")
    give(OTHER, volume / "rules.yaml")
    assert rules_for(parse_address(f"dir:{volume}"), signs=False).grace == 2 * 86_400
    assert rules_for(parse_address(f"dir:{volume}"), signs=True) == MirrorRules()  # It is not published to.
    give(OTHER + 1, volume / "rules.yaml")
    with pytest.raises(UsageError, match="rules-not-own"):
        rules_for(parse_address(f"dir:{volume}"), signs=False)


@pytest.mark.parametrize("missing", ["small:latest", "job/mirror/small:latest"])
def test_others_are_told_that_its_marker_is_lost_where_they_name_it(
    volume: Path, maker: ImagePublisher, missing: str
) -> None:
    """Anybody can put such folders into /tmp: whoever names another mirror there is not told to make /tmp one."""
    (volume / MARKER).unlink()
    with pytest.raises(VerificationError, match="marker-missing"):
        parse_address(f"dir:{volume}").form.pull_source(volume, maker.clock)
    with pytest.raises(UsageError, match="not-a-mirror") as caught:
        verify_reference(parse_address(f"dir:{volume}/{missing}"), key().public, maker.build_env)
    assert "scrub" not in str(caught.value) + str(caught.value.problems[0].hint)
    assert find_root(volume / "job") is None
