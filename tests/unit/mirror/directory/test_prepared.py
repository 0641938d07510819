"""A mirror whose rules are written before it is made: they hold from the first publication on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory import mirror_owner
from pipeline.mirror.backends.directory.directory_address_form import find_root
from pipeline.mirror.backends.directory.directory_mirror import can_be_made, open_directory
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.model.rules import MirrorRules
from pipeline.progress import QUIET
from pipeline.release import rules_for
from tests.support.published_images import ImagePublisher

OTHER = 4711


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with nothing but rules."""
    root = tmp_path / "above" / "mirror"
    root.mkdir(parents=True)
    (root / "rules.yaml").write_text("grace: 2d\n")
    return root


def make_foreign(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let these files be another user's, as far as relbuild looks."""
    real = mirror_owner.owner

    def owner(seen: os.stat_result) -> int:
        return OTHER if any(os.path.samestat(path.lstat(), seen) for path in paths if path.exists()) else real(seen)

    monkeypatch.setattr(mirror_owner, "owner", owner)


def publish(root: Path, maker: ImagePublisher) -> None:
    access = MirrorAccess({}, QUIET, maker.clock, maker.store)
    with access.repository(parse_address(f"dir:{root}/small"), create=True, write=True) as repository:
        maker.publish(repository, maker.image("1.0"))


def test_it_becomes_a_mirror_and_keeps_its_rules(prepared: Path, maker: ImagePublisher) -> None:
    mirror, repository = parse_address(f"dir:{prepared}"), parse_address(f"dir:{prepared}/small")
    assert find_root(prepared) is None
    repository.form.require_place(repository, "small")
    assert repository.form.mirror_of(repository).rest == str(prepared)
    before = rules_for(mirror, signs=True)
    assert before.grace == 2 * 86_400
    publish(prepared, maker)
    assert find_root(prepared / "small") == (prepared, "small")
    assert rules_for(mirror, signs=True) == before
    assert (prepared / "rules.yaml").read_text() == "grace: 2d\n"


def test_rules_beside_it_are_not_its_own(prepared: Path, maker: ImagePublisher) -> None:
    """What `dir:above/mirror/new` names is a mirror in the folder `new`, and not the one above."""
    assert rules_for(parse_address(f"dir:{prepared}/new"), signs=True) == MirrorRules()
    publish(prepared / "new", maker)
    assert rules_for(parse_address(f"dir:{prepared}/new"), signs=True) == MirrorRules()


def test_a_creation_that_was_killed_is_finished_there(prepared: Path, maker: ImagePublisher) -> None:
    made = open_directory(prepared, create=True, clock=maker.clock)
    (made.place.root / "relbuild-mirror.json").unlink()
    assert can_be_made(prepared) and rules_for(parse_address(f"dir:{prepared}"), signs=True).grace == 2 * 86_400
    publish(prepared, maker)


@pytest.mark.parametrize("other", ["nginx.yaml", "rules.yml", "relbuild", ".git"])
def test_a_folder_with_anything_else_is_left_alone(prepared: Path, maker: ImagePublisher, other: str) -> None:
    (prepared / other).mkdir()
    assert rules_for(parse_address(f"dir:{prepared}"), signs=True) == MirrorRules()
    with pytest.raises(UsageError, match="not-a-mirror"):
        publish(prepared, maker)
    assert {path.name for path in prepared.iterdir()} == {"rules.yaml", other}


@pytest.mark.parametrize("kind", ["directory", "dangling link", "loop"])
def test_rules_that_are_no_file_make_none(prepared: Path, maker: ImagePublisher, kind: str) -> None:
    """No rules would hold, where somebody meant to have some."""
    rules = prepared / "rules.yaml"
    rules.unlink()
    rules.mkdir() if kind == "directory" else rules.symlink_to("nosuch" if kind == "dangling link" else rules.name)
    with pytest.raises(UsageError, match="not-a-mirror"):
        publish(prepared, maker)
    assert [path.name for path in prepared.iterdir()] == ["rules.yaml"]


def test_nothing_is_read_from_one_that_is_not_published_to(prepared: Path) -> None:
    address = parse_address(f"dir:{prepared}")
    assert rules_for(address, signs=False) == MirrorRules()
    with pytest.raises(UsageError, match="not-a-mirror"):
        open_directory(prepared, create=False, clock=lambda: 0.0)


def test_another_users_folder_below_a_shared_one_is_refused(
    prepared: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He would choose the rules of what is signed there."""
    prepared.parent.chmod(0o1777)
    make_foreign(monkeypatch, prepared, prepared / "rules.yaml")
    with pytest.raises(UsageError, match="mirror-not-own"):
        rules_for(parse_address(f"dir:{prepared}"), signs=True)
    with pytest.raises(UsageError, match="mirror-not-own"):
        publish(prepared, maker)
    assert [path.name for path in prepared.iterdir()] == ["rules.yaml"]


def test_rules_of_one_that_is_exchanged_meanwhile_are_not_read(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's folder was there when it was looked at, and none when it was opened."""
    prepared.parent.chmod(0o1777)
    real = mirror_owner.open_own

    def gone(path: Path) -> int:
        hidden = prepared.rename(prepared.parent / "hidden")
        try:
            return real(path)
        finally:
            hidden.rename(prepared)

    monkeypatch.setattr(mirror_owner, "open_own", gone)
    assert rules_for(parse_address(f"dir:{prepared}"), signs=True) == MirrorRules()


def test_another_users_rules_in_a_shared_folder_make_none(
    prepared: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared.chmod(0o1777)
    make_foreign(monkeypatch, prepared / "rules.yaml")
    assert not can_be_made(prepared)
    with pytest.raises(UsageError, match="not-a-mirror"):
        publish(prepared, maker)
    assert [path.name for path in prepared.iterdir()] == ["rules.yaml"]


def test_another_users_rules_above_stop_nobody(
    prepared: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared.chmod(0o1777)
    make_foreign(monkeypatch, prepared / "rules.yaml")
    assert rules_for(parse_address(f"dir:{prepared}/job"), signs=True) == MirrorRules()
    publish(prepared / "job", maker)


def test_own_rules_in_a_shared_folder_hold(prepared: Path, maker: ImagePublisher) -> None:
    prepared.chmod(0o1777)
    assert rules_for(parse_address(f"dir:{prepared}"), signs=True).grace == 2 * 86_400
    publish(prepared, maker)
