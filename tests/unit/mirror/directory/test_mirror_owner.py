"""Who publishes to a mirror in a folder that all share made it; others can read it."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory import directory_mirror, mirror_marker, mirror_owner
from pipeline.mirror.backends.directory.directory_address_form import MARKER
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.model.rules import MirrorRules
from pipeline.progress import QUIET
from pipeline.release import rules_for
from tests.support.moved_tags import published_files
from tests.support.other_owners import OTHER, Give, publish, refused
from tests.support.published_images import ImagePublisher

UNMAPPED = 65534


@pytest.mark.parametrize("content", ["marker and rules", "nothing"])
def test_a_folder_that_another_user_made_below_a_shared_one_is_not_published_to(
    shared: Path, maker: ImagePublisher, give: Give, content: str
) -> None:
    root = shared / "mirror"
    root.mkdir(mode=0o777)
    if content != "nothing":
        (root / MARKER).write_text('{"format":1,"host":"registry.example/prod"}')
        (root / "rules.yaml").write_text("grace: 1s\n")
    give(OTHER, root)
    assert f"'{root}' belongs to uid {OTHER}, in a folder that all users share" in refused(root, maker)


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("exists", [True, False])
def test_nor_is_one_in_a_folder_of_another_user(
    shared: Path, maker: ImagePublisher, give: Give, between: bool, exists: bool
) -> None:
    """He can exchange the mirror."""
    above = shared / "theirs" / "between" if between else shared / "theirs"
    above.mkdir(parents=True)
    give(OTHER, shared / "theirs")
    give(os.geteuid(), shared / "theirs" / "mirror")
    if exists:
        (above / "mirror").mkdir()
    if between:
        give(os.geteuid(), above)
    assert f"'{shared / 'theirs'}' belongs to uid {OTHER}" in refused(above / "mirror", maker)


def test_nor_where_a_link_of_another_user_leads(
    shared: Path, maker: ImagePublisher, give: Give, tmp_path: Path
) -> None:
    publish(tmp_path / "own", maker)
    (shared / "mirror").symlink_to(tmp_path / "own")
    give(OTHER, shared / "mirror")
    before = published_files(tmp_path / "own")
    with pytest.raises(UsageError, match=f"'{shared / 'mirror'}' belongs to uid {OTHER}"):
        publish(shared / "mirror", maker)
    assert published_files(tmp_path / "own") == before


def test_nor_where_a_link_leads_to_such_a_link(shared: Path, maker: ImagePublisher, give: Give, tmp_path: Path) -> None:
    publish(tmp_path / "own", maker)
    (shared / "mirror").symlink_to(tmp_path / "own")
    (tmp_path / "first").symlink_to("shared/mirror")
    give(OTHER, shared / "mirror")
    with pytest.raises(UsageError, match=f"'{shared / 'mirror'}' belongs to uid {OTHER}"):
        publish(tmp_path / "first", maker)
    give(os.geteuid(), shared / "mirror")
    publish(tmp_path / "first", maker)


def test_a_loop_of_links_is_told(shared: Path, maker: ImagePublisher) -> None:
    (shared / "loop").symlink_to("loop")
    for root in (shared / "loop", shared / "loop" / "mirror"):
        with pytest.raises(EnvironmentLacking, match=r"levels of symbolic links[^\n]*mirror-unreachable"):
            publish(root, maker)


def test_nor_where_a_shared_folder_is_another_users_in_one_that_all_share(
    shared: Path, maker: ImagePublisher, give: Give
) -> None:
    """Who owns a sticky folder can exchange all that is in it."""
    inner = shared / "theirs"
    inner.mkdir()
    inner.chmod(0o1777)
    give(OTHER, inner)
    give(os.geteuid(), inner / "mirror")
    assert f"'{inner}' belongs to uid {OTHER}" in refused(inner / "mirror", maker)


def test_one_that_another_user_makes_meanwhile_is_not_signed_in(
    shared: Path, maker: ImagePublisher, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, real = shared / "mirror", directory_mirror.can_be_made

    def plant(path: Path) -> bool:
        done = real(path)
        root.mkdir(mode=0o777)
        give(OTHER, root)
        return done

    monkeypatch.setattr(directory_mirror, "can_be_made", plant)
    access = MirrorAccess({}, QUIET, maker.clock, maker.store)
    with (
        pytest.raises(UsageError, match="mirror-not-own"),
        access.mirror(parse_address(f"dir:{root}"), create=True),
    ):
        pytest.fail("opened")
    assert not list(root.iterdir())


def exchange(root: Path, monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> Path:
    """Have another mirror stand in a mirror's place while that is opened, and return where it is else."""
    hidden, real = root.with_name("hidden"), directory_mirror.open_directory
    hidden.mkdir(mode=0o777)
    (hidden / MARKER).write_text('{"format":1,"host":"registry.example/prod"}')

    def flip(path: Path, **how: Any) -> DirectoryMirror:
        hidden.rename(root)
        try:
            return real(path, **how)
        finally:
            root.rename(hidden)
            then()

    monkeypatch.setattr(directory_mirror, "open_directory", flip)
    return hidden


def test_one_that_comes_and_goes_meanwhile_gives_no_name(
    shared: Path, maker: ImagePublisher, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a loop of renames it was read while nothing was there when it was looked at."""
    root = shared / "mirror"
    hidden = exchange(root, monkeypatch, lambda: None)
    give(OTHER, hidden)
    with pytest.raises(EnvironmentLacking, match="mirror-unreachable"):
        publish(root, maker)
    assert not root.exists() and [path.name for path in hidden.iterdir()] == [MARKER]
    monkeypatch.undo()
    publish(root, maker)
    assert mirror_marker.read_host(root) == "localhost"


def test_nor_one_in_whose_place_is_ones_own_by_then(
    shared: Path, maker: ImagePublisher, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, real = shared / "mirror", directory_mirror.open_directory
    exchange(root, monkeypatch, lambda: real(root, create=True, clock=maker.clock))
    with pytest.raises(UsageError, match="when it was opened, and has localhost now") as caught:
        publish(root, maker)
    assert caught.value.problems[0].code == "mirror-host" and not list((root / "repositories").iterdir())


@pytest.mark.parametrize("below", ["", "/small"])
def test_the_rules_of_one_that_comes_and_goes_are_not_those_of_a_first_publication(
    shared: Path, give: Give, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """By a loop of renames they were read, and nothing was there when it was looked at whose the mirror is."""
    root, address = shared / "mirror", parse_address(f"dir:{shared}/mirror{below}")
    root.mkdir(mode=0o777)
    (root / MARKER).write_text('{"format":1,"host":"registry.example/prod"}')
    (root / "rules.yaml").write_text("grace: 1s\n")
    give(OTHER, root)
    with pytest.raises(UsageError, match="mirror-not-own"):
        rules_for(address, signs=True)
    assert rules_for(address, signs=False).grace == 1
    real = mirror_owner.open_own

    def gone(path: Path) -> int:
        root.rename(shared / "hidden")
        try:
            return real(path)
        finally:
            (shared / "hidden").rename(root)

    monkeypatch.setattr(mirror_owner, "open_own", gone)
    assert rules_for(address, signs=True) == MirrorRules()


def test_the_way_out_that_the_error_names_is_one(shared: Path, maker: ImagePublisher, give: Give) -> None:
    """After a chown of the folder alone, its marker would count."""
    root, away = shared / "mirror", shared / "away"
    root.mkdir()
    (root / MARKER).write_text('{"format":1,"host":"registry.example/prod"}')
    give(OTHER, root)
    refused(root, maker)
    root.rename(away)
    root.mkdir()
    give(os.geteuid(), root)
    publish(root, maker)
    assert mirror_marker.read_host(root) == "localhost"


@pytest.mark.parametrize("user", [0, None])
@pytest.mark.parametrize("where", ["mirror", "job/mirror"])
def test_what_root_or_the_publisher_made_is_published_to(
    shared: Path, maker: ImagePublisher, give: Give, user: int | None, where: str
) -> None:
    """A CI user publishes to the folder that root made for it."""
    (shared / where).mkdir(parents=True)
    give(os.geteuid() if user is None else user, shared / where)
    give(0, shared / "job")
    publish(shared / where, maker)


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o2775, 0o777])
def test_a_folder_that_another_user_gave_elsewhere_is_published_to(
    tmp_path: Path, maker: ImagePublisher, give: Give, mode: int
) -> None:
    """An administrator's, or a team's: nobody else could make one in its place."""
    team = tmp_path / "team"
    (team / "mirror").mkdir(parents=True)
    team.chmod(mode)
    (team / "mirror").chmod(mode)
    give(OTHER, team)
    publish(team / "mirror", maker)


def test_what_is_mounted_in_a_shared_folder_is_published_to(
    shared: Path, maker: ImagePublisher, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, a folder of the machine belongs to whoever has it there; also one of the same file system."""
    root = shared / "mirror"
    root.mkdir()
    give(OTHER, root)
    real = mirror_owner._mount

    def mounted(handle: int) -> str | None:
        return "mnt_id:\t0" if Path(f"/proc/self/fd/{handle}").readlink() == root else real(handle)

    assert refused(root, maker)
    monkeypatch.setattr(mirror_owner, "_mount", mounted)
    publish(root, maker)


@pytest.mark.parametrize("proc", [True, False])
def test_a_device_number_of_its_own_makes_no_mount(
    shared: Path, maker: ImagePublisher, give: Give, monkeypatch: pytest.MonkeyPatch, proc: bool
) -> None:
    """Anybody may make a subvolume of btrfs; links in the other layer of an overlay have another one, too."""
    root = shared / "mirror"
    root.mkdir()
    give(OTHER, root)
    fstat, lstat, inode = os.fstat, Path.lstat, root.stat().st_ino

    def subvolume(found: os.stat_result) -> os.stat_result:
        return os.stat_result((*found[:2], found.st_dev + (found.st_ino == inode), *found[3:]))

    monkeypatch.setattr(os, "fstat", lambda handle: subvolume(fstat(handle)))
    monkeypatch.setattr(Path, "lstat", lambda path: subvolume(lstat(path)))
    if not proc:
        monkeypatch.setattr(mirror_owner, "_mount", lambda handle: None)
    assert f"'{root}' belongs to uid {OTHER}" in refused(root, maker)


def test_a_mount_is_told_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("/proc")

    def is_mounted(path: Path) -> bool:
        above, part = (os.open(one, os.O_PATH | os.O_NOFOLLOW) for one in (path.parent, path))
        try:
            return mirror_owner._is_mounted(above, part)
        finally:
            os.close(above)
            os.close(part)

    assert is_mounted(Path("/proc"))
    assert not is_mounted(Path("/proc/self")) and not is_mounted(tmp_path) and not is_mounted(tmp_path / "link")
    monkeypatch.setattr(Path, "read_text", lambda path: Path("/no/such/proc").read_bytes().decode())
    assert not is_mounted(Path("/proc"))


def test_in_a_user_namespace_the_mirror_itself_is_a_known_users(
    shared: Path, maker: ImagePublisher, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There root's folders look like any other user's: one between is taken for root's."""
    root = shared / "job" / "mirror"
    root.mkdir(parents=True)
    real = Path.read_text
    kernel = {"/proc/sys/kernel/overflowuid": f"{UNMAPPED}\n", "/proc/self/uid_map": "0 7 1"}
    monkeypatch.setattr(Path, "read_text", lambda path, **given: kernel.get(str(path)) or real(path, **given))
    give(UNMAPPED, shared)
    assert "which stands for all that this user namespace lacks" in refused(root, maker)
    give(os.geteuid(), root)
    publish(root, maker)


def test_who_is_nobody_in_a_user_namespace_does_not_own_what_all_others_own_there(
    shared: Path, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a map, or mapped to the number of nobody: all look like oneself."""
    root = shared / "mirror"
    root.mkdir()
    real = Path.read_text
    kernel = {"/proc/sys/kernel/overflowuid": f"{UNMAPPED}\n", "/proc/self/uid_map": "65534 7 1"}
    monkeypatch.setattr(Path, "read_text", lambda path, **given: kernel.get(str(path)) or real(path, **given))
    monkeypatch.setattr(os, "geteuid", lambda: UNMAPPED)
    give(UNMAPPED, root)
    monkeypatch.setattr(mirror_owner, "_owns", lambda path: path.readlink() != root)
    with pytest.raises(UsageError, match=f"'{root}' belongs to uid {UNMAPPED}"):
        mirror_owner.require_own(root)
    monkeypatch.setattr(mirror_owner, "_owns", lambda path: path.readlink() == root)
    mirror_owner.require_own(root)


def test_the_kernel_says_who_owns_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirror_owner._owns(tmp_path) and not mirror_owner._owns(tmp_path / "missing")
    if os.geteuid() != 0:
        assert not mirror_owner._owns(Path("/"))
    real = os.open

    def refuse(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    assert not mirror_owner._owns(tmp_path)


def test_whose_folder_it_is_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda user: pwd.struct_passwd(("bob", "x", user, user, "", "/", "/")))
    assert mirror_owner._user(OTHER) == f"uid {OTHER} (bob)"
