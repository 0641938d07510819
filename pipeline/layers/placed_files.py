"""Put a recipe's files into an image, and remove what the recipe removes.

Links of the image lead some paths elsewhere. Where a file comes to lie is compared, as the recipe's paths are when it
is read: below a file system that hides it, at the place of another file, or where it is removed again, it is refused.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from pipeline.errors import BuildError, RecipeError
from pipeline.layers.archive_files import place_archive
from pipeline.layers.installed_packages import matching_paths
from pipeline.layers.passwd_files import is_number
from pipeline.layers.recipe_files import ImageFile
from pipeline.model.recipe import FileKind
from pipeline.model.tree import Tree
from pipeline.sandbox import RootFs
from pipeline.store import Store

_COVERED = frozenset({"dev", "proc", "run", "sys", "tmp"})
"""Folders over which file systems are mounted when the image runs."""


def place_files(
    files: Sequence[ImageFile],
    root: RootFs,
    numbers: Mapping[tuple[str, str], int],
    build_time: int,
    store: Store,
) -> dict[str, ImageFile]:
    """Put the files into the image, archives first; return them by where they came to lie.

    `numbers` are those of the image's accounts: (`user` or `group`, name) → number.

    Raises BuildError `owner-unknown`, `image-path-failed`, and as `place_archive`; RecipeError `path-unsafe`,
    `file-duplicate`.
    """
    made: dict[str, ImageFile] = {}
    for file in _archives_first(files):
        with _told_at(file.place):
            real = _real_path(file, root)
            before = made.get(real)
            if before is not None and before.kind is not FileKind.ARCHIVE:
                raise RecipeError(
                    "file-duplicate",
                    f"'{file.path}' is '{before.path}' too, over links of the image, which is created at "
                    f"{before.place.split(': ')[0]}",
                    place=file.place,
                    hint="remove one of them",
                )
            made[real] = file
            _place(file, root, numbers, build_time, store)
    return made


def remove_paths(
    asked: Iterable[tuple[str, str | None]], made: Mapping[str, ImageFile], root: RootFs, tree: Tree
) -> None:
    """Remove the paths that match, each given with its place in the recipe, with all below.

    `made` is what was placed. Raises BuildError `remove-missing`, RecipeError `remove-contradiction`.
    """
    for pattern, place in asked:
        wanted = pattern.strip("/")
        found = matching_paths(pattern, tree) or ([wanted] if root.stat(wanted, follow=False) else [])
        if not found:
            raise BuildError(
                "remove-missing",
                f"'{pattern}' matches nothing in the image",
                place=place,
                hint="correct it or delete it under 'remove:'",
            )
        for path in found:
            real = _beside_links(f"/{path}", root)
            for there, file in made.items():
                if f"{there}/".startswith(f"{real}/") and file.kind is not FileKind.ARCHIVE:
                    where = file.place.split(": ")[0]
                    raise RecipeError(
                        "remove-contradiction",
                        f"'{pattern}' is removed, and '{file.path}' in it is created at {where}",
                        place=place,
                        hint="remove one of the two",
                    )
            root.remove(path)


def need_directory(root: RootFs, path: str) -> None:
    """Make a directory with its parents where there is none.

    An existing one keeps its mode and owner.
    """
    if path and root.stat(path) is None:
        root.make_directory(path)


def _archives_first(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Return the files in the order in which they are placed, archives first.

    So any other file can replace one of an archive.
    """
    return sorted(files, key=lambda file: file.kind is not FileKind.ARCHIVE)


@contextlib.contextmanager
def _told_at(place: str) -> Iterator[None]:
    """Place errors of what is made at a path of the image where the recipe asks for it."""
    try:
        yield
    except BuildError as error:
        raise BuildError.of([replace(one, place=place) for one in error.problems]) from error


def _real_path(file: ImageFile, root: RootFs) -> str:
    """Return where a file comes to lie.

    Raises RecipeError `path-unsafe` where it would be hidden.
    """
    follows = file.kind in (FileKind.DIRECTORY, FileKind.ARCHIVE)
    real = root.real(file.path) if follows else _beside_links(file.path, root)
    if real.split("/")[1] in _COVERED:
        raise RecipeError(
            "path-unsafe",
            f"'{file.path}' is '{real}', over links of the image, and covered by a file system when it runs",
            place=file.place,
            hint="put it elsewhere under /usr, /etc or /var; files created at run time need no entry here",
        )
    return real


def _beside_links(path: str, root: RootFs) -> str:
    """Return a path with the links among its directories resolved.

    Its last component is left as it is.
    """
    folder, _, name = path.rpartition("/")
    return f"{root.real(folder).rstrip('/')}/{name}"


def _place(
    file: ImageFile, root: RootFs, numbers: Mapping[tuple[str, str], int], build_time: int, store: Store
) -> None:
    uid = _number("user", file.owner, numbers, file.place)
    gid = _number("group", file.group, numbers, file.place)
    path = file.path.lstrip("/")
    match file.kind:
        case FileKind.SYMLINK:
            need_directory(root, posixpath.dirname(path))
            root.symlink(path, file.link, uid=uid, gid=gid, mtime=build_time)
        case FileKind.ARCHIVE:
            assert file.archive is not None
            need_directory(root, posixpath.dirname(path))
            with store.reading(file.archive.digest) as archive:
                place_archive(file, archive, root, uid=uid, gid=gid, mtime=build_time)
        case FileKind.DIRECTORY:
            root.make_directory(path, mode=file.mode or 0, uid=uid, gid=gid, mtime=build_time)
        case FileKind.TEMPLATE | FileKind.CONTENT | FileKind.SOURCE | FileKind.URL:
            need_directory(root, posixpath.dirname(path))
            content, mode = file.content or b"", file.mode or 0
            root.write_file(path, content, mode=mode, uid=uid, gid=gid, mtime=build_time)
        case other:
            assert_never(other)


def _number(kind: str, name: str, numbers: Mapping[tuple[str, str], int], place: str) -> int:
    if is_number(name):
        return int(name)
    try:
        return numbers[kind, name]
    except KeyError:
        raise BuildError(
            "owner-unknown",
            f"the image has no {kind} '{name}'",
            place=place,
            hint=f"define it under 'accounts: {kind}s:', or add the package that creates it",
        ) from None
