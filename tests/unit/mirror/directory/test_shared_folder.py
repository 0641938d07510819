"""Who shares a folder such as /tmp with others decides nothing about their mirrors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory import mirror_owner
from pipeline.mirror.backends.directory.directory_address_form import MARKER, find_root
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.model.rules import MirrorRules
from pipeline.release import rules_for

PLANTED = ("relbuild-mirror.json", "rules.yaml", "repositories")
RULES = "retention:\n- {tags: '*', keep: 1}\ngrace: 1s\nquarantine: 1s\n"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder like /tmp, in which somebody put what makes a mirror."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / MARKER).write_text('{"format":1,"host":"localhost"}')
    (folder / "rules.yaml").write_text(RULES)
    return folder


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    """The files in the shared folder are another user's."""
    real = mirror_owner.owner

    def owner(seen: os.stat_result) -> int:
        return 4711 if any(os.path.samestat(found, seen) for found in existing(shared, PLANTED)) else real(seen)

    monkeypatch.setattr(mirror_owner, "owner", owner)


def existing(folder: Path, names: tuple[str, ...]) -> list[os.stat_result]:
    """Return the status of those of these files in a folder that exist."""
    return [(folder / name).lstat() for name in names if os.path.lexists(folder / name)]


def mirror(root: Path) -> Path:
    open_directory(root, create=True, clock=lambda: 0.0, host="registry.example/prod")
    return root


@pytest.mark.parametrize("address", ["", "/small", "/team/small:1.0"])
def test_the_rules_of_a_mirror_above_hold_for_no_mirror_below(tmp_path: Path, address: str) -> None:
    root = mirror(tmp_path / "shared" / "job" / "mirror")
    (tmp_path / "shared" / MARKER).write_text('{"format":1,"host":"localhost"}')
    (tmp_path / "shared" / "rules.yaml").write_text(RULES)
    assert rules_for(parse_address(f"dir:{root}{address}"), signs=True) == MirrorRules()
    (root / "rules.yaml").write_text("grace: 2d\n")
    assert rules_for(parse_address(f"dir:{root}{address}"), signs=True).grace == 2 * 86_400
    assert rules_for(parse_address(f"dir:{tmp_path}/shared/other"), signs=True).grace == 1


@pytest.mark.usefixtures("another_user")
def test_files_of_another_user_in_a_shared_folder_make_no_mirror(shared: Path) -> None:
    assert find_root(shared / "job" / "small") is None
    assert rules_for(parse_address(f"dir:{shared}/job/small"), signs=True) == MirrorRules()
    root = mirror(shared / "job")
    assert find_root(root / "small") == (root, "small")
    with pytest.raises(UsageError, match="not-a-mirror"):
        parse_address(f"dir:{shared}/small").form.require_place(parse_address(f"dir:{shared}/small"), "small")


@pytest.mark.usefixtures("another_user")
def test_content_of_another_user_in_a_shared_folder_stops_nobody(shared: Path) -> None:
    (shared / MARKER).unlink()
    (shared / "repositories" / "small" / "_tags").mkdir(parents=True)
    (shared / "repositories" / "small" / "_manifests").mkdir()
    (shared / "blobs" / "sha256").mkdir(parents=True)
    assert find_root(shared / "job") is None
    mirror(shared / "job")


@pytest.mark.parametrize("whose", ["another user's", "own"])
def test_a_link_that_cannot_be_followed_in_the_place_of_a_marker_stops_nobody(
    shared: Path, tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Whoever publishes below /tmp met `no-permission`, for a link to where only root may look."""
    (shared / MARKER).unlink()
    (shared / MARKER).symlink_to(tmp_path / "secret")
    if whose != "own":
        request.getfixturevalue("another_user")
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path == shared / MARKER and follow_symlinks:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)
    assert find_root(shared / "job" / "small") is None
    mirror(shared / "job")
    with pytest.raises(VerificationError, match="marker-damaged") as caught:
        open_directory(shared, create=False, clock=lambda: 0.0)
    assert caught.value.problems[0].place == str(shared / MARKER)


def test_a_marker_in_a_folder_that_cannot_be_searched_is_told(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(mirror_owner, "is_foreign", lambda path: False)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(PermissionError, match=MARKER):
        find_root(shared / "small")


def test_own_files_in_a_shared_folder_count(shared: Path) -> None:
    assert find_root(shared / "job" / "small") == (shared, "job/small")
    assert rules_for(parse_address(f"dir:{shared}/small"), signs=True).grace == 1
    (shared / MARKER).unlink()
    (shared / "repositories" / "small" / "_tags").mkdir(parents=True)
    (shared / "repositories" / "small" / "_manifests").mkdir()
    (shared / "blobs" / "sha256").mkdir(parents=True)
    with pytest.raises(VerificationError, match="marker-missing"):
        find_root(shared / "small")


@pytest.mark.usefixtures("another_user")
@pytest.mark.parametrize("mode", [0o775, 0o2775, 0o777])
def test_folders_that_a_team_shares_are_as_ever(shared: Path, mode: int) -> None:
    """Who publishes there made the marker, whoever owns the folder."""
    shared.chmod(mode)
    assert find_root(shared / "small") == (shared, "small")
    assert rules_for(parse_address(f"dir:{shared}/small"), signs=True).grace == 1


@pytest.mark.usefixtures("another_user")
def test_rules_that_another_user_put_into_a_shared_mirror_are_refused(
    shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not ignored either: an operator of another user would have gate and retention fall back to the defaults."""
    monkeypatch.setattr("tests.unit.mirror.directory.test_shared_folder.PLANTED", ("rules.yaml",))
    assert find_root(shared / "small") == (shared, "small")
    for address in (parse_address(f"dir:{shared}"), parse_address(f"dir:{shared}/small")):
        with pytest.raises(UsageError, match="rules-not-own") as caught:
            rules_for(address, signs=True)
        (problem,) = caught.value.problems
        assert problem.place == str(shared / "rules.yaml") and "uid 4711" in problem.message
        assert "--rules FILE" in (problem.hint or "") and "chown" not in (problem.hint or "")
        (tmp_path / "given.yaml").write_text("grace: 3d\n")
        assert rules_for(address, tmp_path / "given.yaml", signs=True).grace == 3 * 86_400


@pytest.mark.usefixtures("another_user")
@pytest.mark.parametrize("signs", [True, False])
def test_rules_that_another_user_puts_there_meanwhile_do_not_count(
    shared: Path, monkeypatch: pytest.MonkeyPatch, signs: bool
) -> None:
    """By a loop of renames they were read while none was there when it was looked at whose they are."""
    monkeypatch.setattr("tests.unit.mirror.directory.test_shared_folder.PLANTED", ("rules.yaml",))
    real, rules = Path.lstat, shared / "rules.yaml"

    def missing(path: Path) -> os.stat_result:
        return real(path.with_name("missing") if path == rules else path)

    monkeypatch.setattr(Path, "lstat", missing)
    assert rules_for(parse_address(f"dir:{shared}/small"), signs=signs) == MirrorRules()
