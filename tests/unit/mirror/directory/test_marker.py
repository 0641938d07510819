"""A mirror that lost its marker is told apart from other folders, and `scrub` writes it anew with the right name."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import RelbuildError, UsageError, VerificationError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory import mirror_marker
from pipeline.mirror.backends.directory.directory_address_form import DIRECTORY, MARKER, find_root, is_unmarked
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.directory.mirror_marker import restore_marker
from pipeline.model.scrub import DamageKind, RepairOutcome, ScrubbedObject
from pipeline.release import copy, scrub, verify_reference
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.moved_tags import HOST, at, opened, published_files
from tests.support.patience import HUNG
from tests.support.published_images import RULES, ImagePublisher, key

DAMAGED = ["", "[]", "{}", "null", "7", '{"format":1,"host":7}', '{"format":1}', '{"format":true,"host":"x"}']
TRUNCATED = f'{{"format":1,"host":"{HOST}"}}'[:40]


def code_of_opening(root: Path, *, create: bool = True) -> tuple[str, str]:
    with pytest.raises(RelbuildError) as caught:
        open_directory(root, create=create, clock=time.time)
    (problem,) = caught.value.problems
    return problem.code, problem.hint or ""


def test_another_format_is_not_damage_and_never_overwritten(published: Path) -> None:
    for text in ('{"format":2,"host":"x"}', '{"format":2}', '{"format":0,"name":[]}'):
        (published / MARKER).write_text(text)
        assert code_of_opening(published) == (
            "mirror-format",
            "use the relbuild version that created it; if this version published to it, somebody wrote that: run "
            f"`relbuild scrub dir:{published} --as` with its name",
        )
        with pytest.raises(UsageError, match="mirror-format"):
            restore_marker(published, time.time, "")
        assert (published / MARKER).read_text() == text


@pytest.mark.parametrize("text", [*DAMAGED, TRUNCATED])
def test_a_damaged_marker_is_put_aside_and_written_anew(text: str, published: Path, maker: ImagePublisher) -> None:
    before = published_files(published)
    (published / MARKER).write_text(text)
    code, hint = code_of_opening(published)
    assert code == "marker-damaged" and f"`relbuild scrub dir:{published}` writes it anew" in hint
    assert code_of_opening(published, create=False) == (code, hint)
    done = scrub(parse_address(f"dir:{published}"), maker.build_env)
    (found,) = done.findings
    assert (found.thing, found.wrong, found.fate) == (ScrubbedObject.MARKER, DamageKind.ROTTEN, RepairOutcome.HEALED)
    assert found.name == MARKER and found.source.endswith(f": {HOST}")
    (aside,) = (published / ".quarantine" / "rotten").iterdir()
    assert aside.read_text() == text
    aside.unlink()
    assert published_files(published) == before
    verify_reference(at(published), key().public, maker.build_env)
    assert scrub(parse_address(f"dir:{published}"), maker.build_env).findings == ()


@pytest.mark.parametrize("kind", ["FIFO", "dangling link", "link to a file", "link to a folder", "folder", "socket"])
def test_what_is_no_file_is_damage_and_neither_read_nor_followed(
    kind: str, published: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    before, elsewhere = published_files(published), tmp_path / "elsewhere"
    marker = published / MARKER
    if kind == "link to a file":
        elsewhere.write_bytes(marker.read_bytes())
    marker.unlink()
    match kind:
        case "FIFO":
            os.mkfifo(marker)
        case "folder":
            marker.mkdir()
            (marker / "something").touch()
        case "socket":
            os.mknod(marker, stat.S_IFSOCK | 0o600)
        case _:
            if kind == "link to a folder":
                elsewhere.mkdir()
            marker.symlink_to(elsewhere)
    assert code_of_opening(published)[0] == code_of_opening(published, create=False)[0] == "marker-damaged"
    with pytest.raises(VerificationError, match="marker-damaged"):
        verify_reference(at(published), key().public, maker.build_env)
    (found,) = scrub(parse_address(f"dir:{published}"), maker.build_env).findings
    assert (found.thing, found.wrong, found.fate) == (ScrubbedObject.MARKER, DamageKind.ROTTEN, RepairOutcome.HEALED)
    (aside,) = (published / ".quarantine" / "rotten").iterdir()
    assert not stat.S_ISREG(aside.lstat().st_mode)
    shutil.rmtree(aside) if kind == "folder" else aside.unlink()
    assert published_files(published) == before
    verify_reference(at(published), key().public, maker.build_env)


def test_folders_that_look_like_a_mirror_are_made_none_where_nothing_is_signed(
    tmp_path: Path, maker: ImagePublisher
) -> None:
    """Whoever can write to a folder above a mirror can make such folders there."""
    (tmp_path / "shared" / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "shared" / "blobs" / "sha256" / ("a" * 64)).touch()
    (tmp_path / "shared" / "repositories").mkdir()
    with pytest.raises(VerificationError, match="marker-missing"):
        open_directory(tmp_path / "shared" / "mine", create=True, clock=time.time)
    with pytest.raises(UsageError, match="marker-ambiguous") as caught:
        scrub(parse_address(f"dir:{tmp_path / 'shared'}"), maker.build_env)
    hint = caught.value.problems[0].hint or ""
    assert "--as localhost" in hint and "move its folders 'blobs' and 'repositories' away" in hint
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {"blobs", "repositories"}


def test_a_missing_marker_is_told_by_every_way_in_and_written_anew(published: Path, maker: ImagePublisher) -> None:
    before = published_files(published)
    (published / MARKER).unlink()
    code, hint = code_of_opening(published)
    assert code == "marker-missing" and f"`relbuild scrub dir:{published}` writes it anew" in hint
    for path in (published, published / "small", published / "team" / "other"):
        with pytest.raises(VerificationError, match="marker-missing"):
            find_root(path)
    with pytest.raises(VerificationError, match="marker-missing"):
        DIRECTORY.pull_source(published, time.time)
    with pytest.raises(VerificationError, match="marker-missing"):
        verify_reference(at(published), key().public, maker.build_env)
    assert not (published / MARKER).exists()
    (found,) = scrub(parse_address(f"dir:{published}"), maker.build_env).findings
    assert (found.wrong, found.fate) == (DamageKind.MISSING, RepairOutcome.HEALED)
    assert published_files(published) == before


def test_a_mirror_in_which_only_its_own_files_are_is_not_made_anew_under_another_name(
    published: Path, maker: ImagePublisher
) -> None:
    (published / "rules.yaml").unlink()
    (published / MARKER).unlink()
    assert code_of_opening(published)[0] == "marker-missing"
    assert json.loads((published / "catalog.json").read_bytes())["repositories"] == ["small", "team/other"]


def test_a_mirror_below_a_marked_one_is_told_by_its_own_name(published: Path, maker: ImagePublisher) -> None:
    (published / MARKER).unlink()
    (published.parent / MARKER).write_text('{"format":1,"host":"localhost"}')
    with pytest.raises(VerificationError, match="marker-missing") as caught:
        find_root(published / "small")
    assert caught.value.problems[0].place == str(published)


def test_a_creation_that_was_killed_has_no_content_and_is_finished(tmp_path: Path) -> None:
    made = open_directory(tmp_path / "m", create=True, clock=time.time, host="a.example").place.root
    (made / MARKER).unlink()
    assert not is_unmarked(made)
    assert restore_marker(made, time.time, "") is None
    assert open_directory(made, create=True, clock=time.time, host="b.example").host == "b.example"


def test_other_folders_with_such_names_are_no_mirrors(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    (registry / "blobs" / "sha256" / "ab" / f"ab{'0' * 62}").mkdir(parents=True)
    (registry / "repositories" / "team" / "small" / "_manifests" / "tags").mkdir(parents=True)
    layout = tmp_path / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "blobs" / "sha256" / ("0" * 64)).write_text("")
    for folder in (registry, layout, tmp_path / "nothing"):
        assert not is_unmarked(folder) and restore_marker(folder, time.time, "a.example") is None
        assert find_root(folder / "x") is None
    assert code_of_opening(registry) == ("not-a-mirror", "choose a new directory")
    (tmp_path / MARKER).write_text("garbage")
    assert code_of_opening(tmp_path) == ("marker-damaged", "publish to a new directory")
    assert restore_marker(tmp_path, time.time, "a.example") is None
    assert (tmp_path / MARKER).read_text() == "garbage"


def test_blobs_alone_are_content(mirror: DirectoryMirror, store: Store) -> None:
    mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 1), "1")
    root = mirror.place.root
    (root / MARKER).unlink()
    shutil.rmtree(root / "repositories")
    (root / "repositories").mkdir()
    assert is_unmarked(root)
    shutil.rmtree(root / "blobs" / "sha256")
    (root / "blobs" / "sha256").mkdir()
    assert not is_unmarked(root)


def test_what_nobody_signed_gets_the_name_that_is_given(mirror: DirectoryMirror, store: Store) -> None:
    mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 1), "1")
    root = mirror.place.root
    for text in (None, TRUNCATED):
        (root / MARKER).unlink()
        if text:
            (root / MARKER).write_text(text)
        with pytest.raises(UsageError, match="marker-ambiguous"):
            restore_marker(root, time.time, "")
        assert restore_marker(root, time.time, "localhost") is not None
        assert open_directory(root, create=False, clock=time.time).host == "localhost"


def test_opening_a_mirror_loads_nothing_for_its_repair() -> None:
    """A publication without changes only opens it."""
    script = "import sys, pipeline.mirror.backends.directory.directory_mirror; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "pipeline.mirror.backends.directory.mirror_marker" in loaded and "pipeline.model.scrub" not in loaded


def test_a_copy_signed_under_its_own_name_has_that_and_not_its_sources(
    published: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    there = open_directory(tmp_path / "there", create=True, clock=maker.clock, host="inside.example").place.root
    copy(at(published, ""), parse_address(f"dir:{there}/small"), key(), RULES, maker.build_env)
    (there / MARKER).unlink()
    assert restore_marker(there, time.time, "") is not None
    assert open_directory(there, create=False, clock=time.time).host == "inside.example"


def test_where_signatures_have_several_names_a_person_chooses(
    published: Path, maker: ImagePublisher, tmp_path: Path
) -> None:
    there = open_directory(tmp_path / "there", create=True, clock=maker.clock, host="inside.example").place.root
    digest = opened(published, maker).resolve("latest")
    copy(
        at(published, f"@{digest}"), parse_address(f"dir:{there}/small"), key(), RULES, maker.build_env
    )  # no tag moves
    (there / MARKER).unlink()
    with pytest.raises(UsageError, match="marker-ambiguous") as caught:  # a store that has not seen the mirror
        scrub(parse_address(f"dir:{there}"), ImagePublisher.at(tmp_path / "other").build_env)
    assert (caught.value.problems[0].hint or "").endswith(f"--as inside.example or --as {HOST}")
    assert not (there / MARKER).exists()
    with pytest.raises(UsageError, match="mirror-host"):
        scrub(parse_address(f"dir:{there}"), maker.build_env, known_as="http://inside.example")
    (found,) = scrub(parse_address(f"dir:{there}"), maker.build_env, known_as="inside.example").findings
    assert found.source == "--as: inside.example"
    verify_reference(at(there, f"@{digest}"), key().public, maker.build_env)
    (there / MARKER).unlink()
    (found,) = scrub(parse_address(f"dir:{there}"), maker.build_env).findings
    assert found.source == "the name that this store remembers: inside.example"


def test_a_name_that_is_given_is_compared_where_nothing_is_lost(published: Path, maker: ImagePublisher) -> None:
    address = parse_address(f"dir:{published}")
    assert scrub(address, maker.build_env, known_as=HOST).findings == ()
    with pytest.raises(UsageError, match="mirror-host"):
        scrub(address, maker.build_env, known_as="other.example")


def test_of_two_scrubs_one_writes_the_marker(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (published / MARKER).write_text(TRUNCATED)
    real, both = mirror_marker._signed_host, threading.Barrier(2, timeout=HUNG)

    def together(place: mirror_marker.MirrorPaths) -> str:
        both.wait()
        return real(place)

    monkeypatch.setattr(mirror_marker, "_signed_host", together)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(restore_marker(published, time.time, ""))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found.count(None) == 1
    assert len(list((published / ".quarantine" / "rotten").iterdir())) == 1
    assert open_directory(published, create=False, clock=time.time).host == HOST


def test_a_restoration_that_is_killed_before_the_marker_is_written_can_be_repeated(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (published / MARKER).write_text(TRUNCATED)

    class Killed(Exception):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(mirror_marker, "write_marker", killed)
        with pytest.raises(Killed):
            restore_marker(published, time.time, "")
    assert (published / MARKER).read_text() == TRUNCATED
    assert restore_marker(published, time.time, "") is not None
    assert open_directory(published, create=False, clock=time.time).host == HOST


def outside(path: Path) -> None:
    folder = path.parent.parent / "outside"
    folder.mkdir(exist_ok=True)
    path.symlink_to(folder)


IN_PLACE_OF_FOLDERS: dict[str, Callable[[Path], object]] = {
    "a file": Path.touch,
    "a FIFO": os.mkfifo,
    "a link": outside,
}


@pytest.mark.parametrize("kind", IN_PLACE_OF_FOLDERS)
@pytest.mark.parametrize("where", [".quarantine", ".quarantine/rotten"])
def test_what_is_no_quarantine_is_replaced_by_one(
    published: Path, maker: ImagePublisher, kind: str, where: str
) -> None:
    (published / where).parent.mkdir(exist_ok=True)
    IN_PLACE_OF_FOLDERS[kind](published / where)
    (published / MARKER).write_text("garbage")
    (found,) = scrub(parse_address(f"dir:{published}"), maker.build_env).findings
    assert found.fate is RepairOutcome.HEALED
    aside = published / ".quarantine" / "rotten"
    assert not aside.is_symlink() and {path.name.partition(".")[0] for path in aside.iterdir()} == {
        "relbuild-mirror",
        where.rpartition("/")[2].lstrip("."),
    }
    assert not list(published.parent.glob("*outside/*")) and not list(published.glob("outside/*"))
