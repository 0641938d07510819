"""Take the snapshot of a build's inputs and outputs by which it is recognised the next time.

Nothing is taken of a build whose result may be another one with the same files: see `unremembered`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline import process
from pipeline.beneath import ReadLog, logged_path
from pipeline.build.begun_snapshot import (
    CHILD_LIBRARIES,
    BegunSnapshot,
    asked_again,
    intact_stamp,
    needed_blobs,
    own_programs,
    recipe_line,
)
from pipeline.build.build_result import BuildResult
from pipeline.build.remembered_build import RememberedBuild, unchanged_report
from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.model.configuration import oci_architecture
from pipeline.model.image import Image
from pipeline.model.report_names import REPORT_FILE
from pipeline.oci.image_layout import index_bytes, layer_stamp
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.reports import report_folder
from pipeline.repos.variables import environment_names, expand_repository, platform_variables
from pipeline.resolve import read_lock
from pipeline.sandbox import native_architectures
from pipeline.sandbox.runtime import RUNTIMES
from pipeline.smoke import loopback_warnings
from pipeline.snapshots import (
    CODE,
    IGNORED_VARIABLES,
    START,
    file_stamp,
    look_at_file,
    look_at_names,
    look_at_output,
    look_at_path,
    program_digest,
)

TICK = 0.05
"""Seconds in which two changes of a file may have the same time: the kernel's clock of files has steps of up to 10 ms.
A file that changed as shortly before it was read may have been read before its last change."""


class _Unremembered(Exception):
    """The build cannot be recognised the next time; its text says why."""


def take_build_snapshot(
    built: BuildResult, options: BuildOptions, build_env: BuildEnvironment, log: ReadLog, *, started: float
) -> RememberedBuild | None:
    """Return what a build read and wrote, without what it said.

    None if it cannot be recognised the next time. `started`: when this process was, in seconds since the epoch.
    """
    try:
        begun = built.assembled.begun
        _refuse(built, options, build_env)
        own_lock = logged_path(built.locked.path)
        looked = [*_looked(log, own_lock), *_runtime_places(options, build_env)]
        programs = tuple(sorted({*own_programs(build_env, begun), *log.programs}))
        files, large = _files(log, own_lock, set(programs))
        _require_lock(built, {str(path): digest for path, _, _, digest in files}.get(own_lock))
        modules = sorted({name.partition(".")[0] for name in sys.modules} | log.modules | {*CHILD_LIBRARIES})
        code, newest = program_digest(programs, frozenset(modules), begun.program if begun else None)
        if newest >= (started - START) * 1e9:
            return None
        outputs = tuple(_outputs(built, options, build_env))
        return RememberedBuild(
            made=build_env.clock(),
            files=files,
            large=large,
            looked=looked,
            folders=tuple(_folders(log)),
            programs=programs,
            modules=modules,
            code=code,
            blobs=tuple(_blobs(built, build_env, begun)),
            outputs=outputs,
            fresh=any(_is_fresh(folder) for folder, entries in outputs if REPORT_FILE in entries),
            warnings=(),
            lines=(),
            all_lines=(),
            answer={},
        )
    except (OSError, ValueError, TypeError, LookupError, RecursionError, RelbuildError, _Unremembered):
        return None  # What others write meanwhile may be anything, and the build is done.


def unchanged_result(built: BuildResult) -> BuildResult:
    """Return the result that the same build has when it is done again and nothing changed."""
    made = built.assembled
    layers = tuple(layer.name for layer in made.image.layers)
    locked = replace(made.locked, wrote=False, first=False, why=(), changes=())
    tested = replace(built.tested, reused=True) if built.tested is not None else None
    return replace(built, assembled=replace(made, locked=locked, reused=layers), tested=tested)


def repeated_warnings(built: BuildResult, warnings: Sequence[str]) -> tuple[str, ...] | None:
    """Return those of a build's warnings that its repetition gives; None if that is not known.

    A build that made something also warned of what it made.
    """
    known = {*(one.sentence for one in built.failed_scriptlets), *built.assembled.unused_waivers}
    if built.tested is not None:  # A recalled verdict gives these again.
        known.update(loopback_warnings(built.tested.report, built.image.name))
    if set(warnings) <= known or built == unchanged_result(built):
        return tuple(warnings)
    return None


def _refuse(built: BuildResult, options: BuildOptions, build_env: BuildEnvironment) -> None:
    """Raise if the result depends on what is not compared.

    That is the network, an emulator, another image, or the option to do it again.
    """
    recipe, platform = built.locked.recipe, built.locked.platform
    if asked_again(options):
        raise _Unremembered("it was asked to do again")
    if built.member or oci_architecture(built.locked.section.resolution.arch) not in native_architectures():
        raise _Unremembered("it is for other architectures")
    if built.report is not None and not built.report.passed:
        raise _Unremembered("it did not pass")
    if any(one.smoke.upgrade_from for one in recipe_line(recipe)):
        raise _Unremembered("it is tested with an older image")
    if environment_names(platform) & IGNORED_VARIABLES:
        raise _Unremembered("its repositories depend on the session")
    own = platform_variables(platform, built.locked.section.resolution.arch, build_env.environment)
    expanded = [expand_repository(one, own, build_env.environment) for one in platform.repositories]
    if not build_env.offline and any(key.startswith(("http:", "https:")) for one in expanded for key in one.keys):
        raise _Unremembered("its keys are fetched each time")


# --- what was read -------------------------------------------------------------------------------


def _files(
    log: ReadLog, own_lock: str, programs: Container[str]
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Return all files that were read but those of the program.

    The small ones by their content, the large ones by their stamp. Raises if one was changed after it was first read,
    or may have been. The lock is written by the build itself.
    """
    small: list[tuple[object, ...]] = []
    large: list[tuple[object, ...]] = []
    for path in sorted({*log.contents, *log.opened, own_lock}):
        if path in programs or path.startswith(f"{CODE}/"):
            continue
        before = os.stat(path)  # noqa: PTH116
        seen = look_at_file(path)
        if path != own_lock:
            _require_unchanged(path, before, seen, log)
        if seen is not None:
            small.append((path, *seen))
        elif path in log.contents:
            raise _Unremembered(f"{path} was changed")
        else:
            large.append((path, os.path.realpath(path), file_stamp(before)))
    return small, large


def _require_unchanged(path: str, now: os.stat_result, seen: tuple[str, int, str] | None, log: ReadLog) -> None:
    """Raise if a file is not what was read of it, by its digest or its status when opened."""
    if path in log.contents and (seen is None or log.contents[path] != {seen[2]}):
        raise _Unremembered(f"{path} was changed")
    times = log.opened.get(path, ())
    if any(file_stamp(status) != file_stamp(now) for status, _ in times):
        raise _Unremembered(f"{path} was changed")
    if times and (now.st_ctime > times[0][1] - TICK or file_stamp(now) != file_stamp(os.stat(path))):  # noqa: PTH116
        raise _Unremembered(f"{path} was changed")


def _require_lock(built: BuildResult, found: object) -> None:
    """Raise if the lock at its path is not the one that the build used or wrote.

    It is read after its digest was `found`: what changes it later is seen the next time.
    """
    if built.locked.written is not None and found == built.locked.written.hex:
        return
    section = built.locked.section
    lock = read_lock(built.locked.path)
    if lock is None or lock.section(section.resolution.platform, section.resolution.arch) != section:
        raise _Unremembered("the lock was changed")


def _looked(log: ReadLog, own_lock: str) -> Iterator[tuple[str, int, str]]:
    """Yield what is at each path that was looked at; raise if it has become another type since."""
    for path, kinds in sorted(log.looked.items()):
        if path == own_lock:
            continue  # It is among the files.
        kind, real = look_at_path(path)
        if kinds != {kind}:
            raise _Unremembered(f"{path} was changed")
        yield path, kind, real
    # A folder that was listed may become a link to another one with the same names, or with none as well.
    yield from ((path, *look_at_path(path)) for path in sorted(log.listed.keys() - log.looked.keys()))


def _folders(log: ReadLog) -> Iterator[tuple[str, str]]:
    """Yield the folders that were listed; raise if one has other names since."""
    for path, digests in sorted(log.listed.items()):
        names = look_at_names(path)
        if digests != {names}:
            raise _Unremembered(f"{path} was changed")
        yield path, names


def _runtime_places(options: BuildOptions, build_env: BuildEnvironment) -> Iterator[tuple[str, int, str]]:
    """Yield the paths at which the runtime was looked for, to the first that is there."""
    for name in ((build_env.runtime,) if build_env.runtime else RUNTIMES) if options.smoke else ():
        found = process.find_program(name)
        for folder in process.SEARCH_PATH.split(":") if "/" not in name else ():
            path = os.path.join(folder, name)  # noqa: PTH118
            yield path, *look_at_path(path)
            if path == str(found):
                break
        if found is not None:
            return


# --- what it needs, and wrote --------------------------------------------------------------------


def _blobs(
    built: BuildResult, build_env: BuildEnvironment, begun: BegunSnapshot | None
) -> Iterator[tuple[str, list[int]]]:
    """Yield the blobs in the store that the build needed; raise if one is not intact."""
    known = begun.blobs if begun else {}
    for digest in sorted({*needed_blobs(built.locked), *(layer.blob.digest for layer in built.image.layers)}):
        stamp = known[digest] if digest in known else intact_stamp(digest, build_env)
        if stamp is None:
            raise _Unremembered(f"{digest} is not in the store")
        yield digest.hex, stamp


def _outputs(
    built: BuildResult, options: BuildOptions, build_env: BuildEnvironment
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the layouts and reports of the image and, if it was tested, of its parents.

    Raises if one is of another image: another build may have replaced it since.
    """
    parent = built.locked.parent
    images = iter([built.image, *([parent.image] if parent is not None else ())])
    for recipe in recipe_line(built.locked.recipe):
        layout = options.layout(recipe.name).absolute()
        entries = look_at_output(str(layout), {f"blobs/sha256/{layer.blob.digest.hex}" for layer in built.image.layers})
        for name, entry in entries.items():
            if entry == -1 or (isinstance(entry, list) and not _is_noted(layout, name, entry, build_env)):
                raise _Unremembered(f"{layout} was changed")
        report = look_at_output(str(report_folder(layout)), ())
        image = next(images, None)
        if -1 in report.values() or (image is not None and not _is_of(image, entries, report_folder(layout), report)):
            raise _Unremembered(f"{layout} or its report was changed")
        yield str(layout), entries
        yield str(report_folder(layout)), report
        if not options.smoke:
            return  # Only of a tested image the parents are tested and written.


def _is_of(image: Image, layout: Mapping[str, object], folder: Path, report: Mapping[str, object]) -> bool:
    """Return whether a layout and the report in `folder`, as looked at, are those of an image."""
    if layout.get("index.json") != Digest.of(index_bytes(image)).hex:
        return False
    said = (folder / REPORT_FILE).read_bytes()
    return report.get(REPORT_FILE) == Digest.of(said).hex and json.loads(said)["image"]["digest"] == str(image.digest)


def _is_fresh(folder: str) -> bool:
    """Return whether a folder's report is that of a build that made something."""
    return unchanged_report(Path(folder, REPORT_FILE).read_bytes()) is not None


def _is_noted(layout: Path, name: str, stamp: list[int], build_env: BuildEnvironment) -> bool:
    """Return whether a layer's file is as it was when it was hashed or copied."""
    known = layer_stamp(layout, Digest(name.rpartition("/")[2]), build_env.store)
    return known == [stamp[2], stamp[1], stamp[3], stamp[4]]
