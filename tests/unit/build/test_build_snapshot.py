"""Builds that are not remembered: what they read changed meanwhile, or more than files decides what they make."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.beneath import ReadSnapshot, list_folder, logged_reads
from pipeline.build import begun_snapshot, build_snapshot
from pipeline.build.begun_snapshot import begin_snapshot
from pipeline.build.build_result import BuildResult
from pipeline.build.build_snapshot import repeated_warnings, take_build_snapshot
from pipeline.build.remembered_build import remember_build
from pipeline.digest import Digest
from pipeline.launch import SmokeResult
from pipeline.model.lock import Lock, LockMode
from pipeline.model.report import LoopbackPort
from pipeline.oci import write_layout
from pipeline.prepare import LockedRecipe
from pipeline.resolve import write_lock
from pipeline.smoke import loopback_warnings
from tests.support import builds
from tests.support.finished_builds import (
    NAME,
    NEVRA,
    FinishedBuild,
    make_finished_build,
    package_blob,
    report_file,
    swap,
)
from tests.support.tested_images import report


def test_what_changed_while_it_was_read_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    before = made.recipe.read_bytes()
    for name in ("demo.yaml", "copied"):
        swap(made.folder / "recipes" / name)
        assert made.snapshot() is None
        made.recipe.write_bytes(before)


def test_what_changed_just_before_it_was_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within a tick of the clock leave the same times."""
    made = make_finished_build(tmp_path, monkeypatch)
    path = str(made.folder / "recipes" / "copied")
    status, _ = made.log.opened[path][0]
    made.log.opened[path] = [(status, status.st_ctime + build_snapshot.TICK / 2)]
    assert made.snapshot() is None


def test_a_lock_that_is_another_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    section = replace(made.built.locked.section, build_time=1)
    write_lock(made.built.locked.path, Lock("demo", (section,)))
    assert made.snapshot() is None


def test_a_lock_that_nobody_read_after_it_was_written_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    lock = str(made.built.locked.path)
    del made.log.contents[lock]
    snapshot = made.snapshot()
    assert snapshot is not None and lock in {path for path, *_ in snapshot.files}


@pytest.mark.parametrize(
    "change",
    [
        lambda done: write_layout(
            replace(done.image, reference="2.0"), store=done.env.store, target=done.options.layout("demo")
        ),
        lambda done: report_file(done).write_text(
            report_file(done).read_text().replace(done.image.digest.hex, "0" * 64)
        ),
        lambda done: report_file(done).write_text("no JSON"),
        lambda done: report_file(done).write_text("[]"),
        lambda done: done.built.locked.path.write_text("<<<<<<< no lock"),
    ],
)
def test_what_another_program_wrote_since_is_not_remembered_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[FinishedBuild], object]
) -> None:
    """Such as a build of the same recipe for another platform into the same folder."""
    made = make_finished_build(tmp_path, monkeypatch)
    change(made)
    assert made.snapshot() is None


def test_what_appeared_meanwhile_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    (made.folder / "recipes" / "demo.conf.j2").write_text("port")
    assert made.snapshot() is None


def test_a_relbuild_that_was_installed_meanwhile_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    assert take_build_snapshot(made.built, made.options, made.env, made.log, started=time.time()) is None


@pytest.mark.parametrize("more", [{"mode": LockMode.UPGRADE}, {"retest": True}, {"sources": True}])
def test_what_is_to_be_done_again_is_not_remembered(done: FinishedBuild, more: dict[str, Any]) -> None:
    assert done.snapshot(**more) is None


def _locked(done: FinishedBuild, **more: Any) -> None:
    cast(Any, done.built).locked = replace(done.built.locked, **more)


def _keys_at(done: FinishedBuild, url: str) -> None:
    repository = replace(builds.PLATFORM.repositories[0], keys=(url,))
    _locked(done, platform=replace(builds.PLATFORM, repositories=(repository,)))


def _tested_with_an_older_image(done: FinishedBuild) -> None:
    recipe = done.built.locked.recipe
    _locked(done, recipe=replace(recipe, smoke=replace(recipe.smoke, upgrade_from="older")))


def _for_another_machine(done: FinishedBuild) -> None:
    section: Any = done.built.locked.section
    _locked(done, section=replace(section, resolution=replace(section.resolution, arch="s390x")))


def _failed(done: FinishedBuild) -> None:
    cast(Any, done.built).report = SimpleNamespace(passed=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda done: _keys_at(done, "https://keys.example/key"),
        _tested_with_an_older_image,
        _for_another_machine,
        _failed,
        lambda done: setattr(done.built, "member", True),
        lambda done: package_blob(done).unlink(),
        lambda done: swap(done.layer),
    ],
)
def test_what_depends_on_more_than_files_is_not_remembered(
    done: FinishedBuild, change: Callable[[FinishedBuild], object]
) -> None:
    change(done)
    assert done.snapshot() is None


def test_keys_from_the_network_count_offline(done: FinishedBuild) -> None:
    _keys_at(done, "https://keys.example/key")
    offline = replace(done, env=replace(done.env, offline=True))
    assert offline.snapshot() is not None


def _result(locked: LockedRecipe, *unused: str, reused: tuple[str, ...] = ()) -> BuildResult:
    image = builds.image("demo", "base")
    made = SimpleNamespace(image=image, locked=locked, reused=reused, failed_scriptlets=(), unused_waivers=unused)
    return cast(BuildResult, SimpleNamespace(assembled=made, image=image, failed_scriptlets=(), tested=None))


def test_warnings_of_what_was_made_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = builds.locked(builds.recipe(tmp_path), NEVRA)
    assert repeated_warnings(_result(locked, "unused"), ["unused"]) == ("unused",)
    monkeypatch.setattr(build_snapshot, "unchanged_result", lambda built: object())
    assert repeated_warnings(_result(locked), ["tried again"]) is None
    tested = _result(locked)
    (found, *others), noted = report(tested.image).instances, (LoopbackPort(80, ("127.0.0.1",)),)
    made = replace(report(tested.image), instances=(replace(found, loopback_ports=noted), *others))
    cast(Any, tested).tested = SmokeResult(made, reused=False, evidence=None)
    said = loopback_warnings(made, tested.image.name)
    assert said and repeated_warnings(tested, said) == said
    monkeypatch.setattr(build_snapshot, "unchanged_result", lambda built: built)
    assert repeated_warnings(_result(locked), ["the key expired"]) == ("the key expired",)


def test_a_listed_folder_that_becomes_a_link_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one with no names in it: nothing in it is read."""
    made = make_finished_build(tmp_path, monkeypatch)
    (tmp_path / "listed").mkdir()
    with logged_reads() as log:
        list_folder(tmp_path / "listed")
    made.log.add(log)
    known = made.snapshot()
    assert known is not None
    remember_build(made.env.store, NAME, known)
    assert made.recalled() is not None
    (tmp_path / "listed").rename(tmp_path / "elsewhere")
    (tmp_path / "listed").symlink_to("elsewhere")
    assert made.recalled() is None


def test_a_program_that_read_recalled_recipes_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    reader = tmp_path / "libraries" / "reader.py"
    reader.write_text("x")
    with logged_reads() as log:
        ReadSnapshot({}, {}, {}, {}, [str(reader)], ["reader"]).note()
    made.log.add(log)
    known = made.snapshot()
    assert known is not None
    assert str(reader) in known.programs and "reader" in known.modules


# --- begun beside the packing ------------------------------------------------------------------------------


def begun(made: FinishedBuild) -> FinishedBuild:
    """Begin the snapshot of a finished build, as one that packs its layers does."""
    begun = begin_snapshot(made.built.locked, made.options, made.env)
    assert begun is not None and len(begun.blobs) == 1
    built = SimpleNamespace(**{**vars(made.built), "assembled": SimpleNamespace(begun=begun)})
    return replace(made, built=cast(BuildResult, built))


def test_a_snapshot_that_was_begun_before_is_the_same_when_nothing_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    plain, drafted = made.snapshot(), begun(made).snapshot()
    assert plain is not None and drafted is not None
    assert replace(drafted, made=plain.made) == plain
    remember_build(made.env.store, NAME, drafted)
    assert made.recalled() is not None


@pytest.mark.parametrize("what", ["code/a.py", "libraries/c.so", "bin/gpg", "a package", "a folder of modules"])
def test_what_changes_after_a_snapshot_was_begun_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The build went by what was there before, or maybe not."""
    early = begun(make_finished_build(tmp_path, monkeypatch))
    if what == "a package":
        package_blob(early).touch()
        early.env.store.sound(Digest.of(NEVRA.encode()))
    elif what == "a folder of modules":
        (early.folder / "libraries" / "json.py").touch()
    else:
        swap(early.folder / what)
    snapshot = early.snapshot()
    if snapshot is not None:
        remember_build(early.env.store, NAME, snapshot)
    assert early.recalled() is None


def test_what_is_loaded_after_a_snapshot_was_begun_is_among_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = begun(make_finished_build(tmp_path, monkeypatch))
    later = early.folder / "libraries" / "later.so"
    later.write_text("x")
    monkeypatch.setattr(begun_snapshot, "mapped_files", lambda known: iter([str(later)]))
    snapshot = early.snapshot()
    assert snapshot is not None and str(later) in snapshot.programs
    remember_build(early.env.store, NAME, snapshot)
    assert early.recalled() is not None
    swap(later)
    assert early.recalled() is None


def test_a_package_that_was_damaged_when_the_snapshot_was_begun_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    content = package_blob(made).read_bytes()
    package_blob(made).chmod(0o644)
    package_blob(made).write_bytes(b"x")
    early = begun(made)
    made.env.store.put(content)
    assert early.snapshot() is None


@pytest.mark.parametrize("more", [{"mode": LockMode.UPGRADE}, {"retest": True}, {"sources": True}])
def test_no_snapshot_is_begun_of_what_is_to_be_done_again(done: FinishedBuild, more: dict[str, Any]) -> None:
    assert begin_snapshot(done.built.locked, replace(done.options, **more), done.env) is None


def test_a_snapshot_that_cannot_be_begun_is_taken_in_the_end(
    done: FinishedBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(known: object = ()) -> None:
        raise LookupError("a library was replaced")

    monkeypatch.setattr(begun_snapshot, "mapped_files", replaced)
    assert begin_snapshot(done.built.locked, done.options, done.env) is None


def test_a_lock_that_the_build_wrote_is_known_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_finished_build(tmp_path, monkeypatch)
    locked = made.built.locked
    written = write_lock(locked.path, Lock("demo", (locked.section,)))
    built = SimpleNamespace(**{**vars(made.built), "locked": replace(locked, written=written)})
    made = replace(made, built=cast(BuildResult, built))
    read: list[Path] = []
    real = build_snapshot.read_lock
    monkeypatch.setattr(build_snapshot, "read_lock", lambda path: (read.append(path), real(path))[1])
    assert made.snapshot() is not None and not read
    locked.path.write_text(locked.path.read_text() + "\n")
    assert made.snapshot() is not None and read, "it says the same in other bytes"
    section = replace(locked.section, build_time=1)
    write_lock(locked.path, Lock("demo", (section,)))
    assert made.snapshot() is None
