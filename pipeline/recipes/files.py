"""Plan the files that a recipe puts into the image, and report those that conflict."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.beneath import PathEscape
from pipeline.digest import Digest
from pipeline.errors import RecipeError
from pipeline.model.quantities import Malformed
from pipeline.model.recipe import FileKind, FilePlan
from pipeline.recipes.paths import parse_link_target
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.schema import FileDocument
from pipeline.render import Templates
from pipeline.yaml_documents import DocumentPath

_DEFAULT_MODE = {FileKind.DIRECTORY: 0o755, FileKind.SYMLINK: None, FileKind.ARCHIVE: None}
_NEED_CHECKSUM = (FileKind.URL, FileKind.ARCHIVE)


def plan_files(
    sources: Sequence[RecipeFile], templates: Templates, top: Path, problems: Problems
) -> tuple[FilePlan, ...]:
    """Plan the files of all `sources`, in order.

    A file with `override` takes the place of the overridden one.

    `top` is the folder that a file's `origin` is relative to. Problems: `file-kind`, `file-key-misplaced`,
    `file-duplicate`, `file-overrides-nothing`, `file-beneath-file`, `source-missing`, `template-missing`, …
    """
    planned: dict[str, FilePlan] = {}
    checked: set[str] = set()
    places: dict[str, tuple[RecipeFile, DocumentPath]] = {}
    for source in sources:
        for index, document in enumerate(source.recipe.files):
            path: DocumentPath = ("files", index)
            plan = _plan(document, source, path, templates=templates, checked=checked, top=top, problems=problems)
            if plan is None:
                continue
            before = planned.get(plan.path)
            if before is not None and not document.override:
                problems.add(
                    "file-duplicate",
                    f"'{plan.path}' is already created at {before.place.split(': ')[0]}",
                    source.document,
                    path,
                    "remove one of them, or write 'override: true' here to replace the other",
                )
                continue
            if before is None and document.override:
                problems.add(
                    "file-overrides-nothing",
                    f"'override' is set, but no earlier entry creates '{plan.path}'",
                    source.document,
                    (*path, "override"),
                    "remove 'override', or correct the path",
                )
            planned[plan.path] = plan
            places[plan.path] = (source, path)
    _refuse_beneath(planned, places, problems)
    return tuple(planned.values())


def _plan(
    document: FileDocument,
    source: RecipeFile,
    path: DocumentPath,
    *,
    templates: Templates,
    checked: set[str],
    top: Path,
    problems: Problems,
) -> FilePlan | None:
    def refuse(code: str, message: str, hint: str, *inner: str) -> None:
        problems.add(code, message, source.document, (*path, *inner), hint)

    kinds = [kind for kind in FileKind if getattr(document, kind) is not None]
    if len(kinds) != 1:
        names = ", ".join(FileKind)
        listed = " and ".join(f"'{kind}'" for kind in kinds) or "none"
        refuse("file-kind", f"a file must have one kind, but this one has {listed}", f"write exactly one of {names}")
        return None
    kind = kinds[0]
    origin: str = "" if kind is FileKind.DIRECTORY else getattr(document, kind)
    target = document.directory if kind is FileKind.DIRECTORY else document.path
    before = len(problems)
    _check_keys(document, kind, refuse)
    if kind is FileKind.TEMPLATE and origin not in checked:
        checked.add(origin)
        try:
            templates.check(origin, place=place(source.document, (*path, "template")))
        except RecipeError as error:
            problems.take(error)
    if kind is FileKind.SOURCE or (kind is FileKind.ARCHIVE and "://" not in origin):
        _check_beside(source, origin, kind, refuse)
        origin = os.path.relpath(source.folder / origin, top)
    if len(problems) > before or target is None:
        return None
    return FilePlan(
        kind=kind,
        path=target,
        origin=origin,
        mode=_DEFAULT_MODE.get(kind, 0o644) if document.mode is None else document.mode,
        owner=document.owner,
        group=document.group or document.owner,
        place=place(source.document, path),
        sha256=Digest(document.sha256) if document.sha256 else None,
        strip=document.strip or 0,
    )


def _check_keys(document: FileDocument, kind: FileKind, refuse: Callable[..., None]) -> None:
    """Refuse keys that this kind of file must not have, and require those that it needs."""
    if kind is FileKind.DIRECTORY:
        if document.path is not None:
            refuse("file-key-misplaced", "a directory has no 'path'", "'directory' is the path; remove 'path'", "path")
    elif document.path is None:
        refuse("key-missing", "the key 'path' is missing", "add the target path: path: /etc/…")
    if kind is FileKind.SYMLINK and document.mode is not None:
        refuse("file-key-misplaced", "a symbolic link has no mode", "remove 'mode'", "mode")
    if document.symlink is not None:
        try:
            parse_link_target(document.symlink)
        except Malformed as error:
            refuse(error.code, str(error), error.hint, "symlink")
    if kind in _NEED_CHECKSUM and document.sha256 is None:
        what = "the archive" if kind is FileKind.ARCHIVE else "the file at the URL"
        refuse("key-missing", "the key 'sha256' is missing", f"add the checksum of {what}")
    if kind not in _NEED_CHECKSUM and document.sha256 is not None:
        with_them = " and ".join(f"'{one}'" for one in _NEED_CHECKSUM)
        refuse("file-key-misplaced", f"'sha256' is allowed with {with_them}, not with '{kind}'", "remove it", "sha256")
    if kind is not FileKind.ARCHIVE:
        if document.strip is not None:
            refuse("file-key-misplaced", f"'strip' is allowed with 'archive', not with '{kind}'", "remove it", "strip")
    elif document.mode is not None and (document.mode > 0o777 or not document.mode & 0o100):
        refuse(
            "mode-malformed",
            f"mode '{document.mode:04o}' is not valid for an archive: it applies to its directories and programs",
            "write 0755 or 0750, for example; files that are not programs get it without x",
            "mode",
        )


def _check_beside(source: RecipeFile, origin: str, kind: FileKind, refuse: Callable[..., None]) -> None:
    """Refuse a file beside the recipe that is missing, not regular, or a link that leads out."""
    try:
        source.given.open(source.folder / origin).close()
    except PathEscape as error:
        refuse("path-escapes", str(error.strerror), error.way_out, kind)
    except FileNotFoundError:
        refuse("source-missing", f"file '{origin}' not found in the recipe's folder", "add it", kind)
    except OSError as error:
        refuse("source-missing", f"'{origin}' cannot be read: {error.strerror}", "name a file", kind)


def _refuse_beneath(
    planned: Mapping[str, FilePlan], places: Mapping[str, tuple[RecipeFile, DocumentPath]], problems: Problems
) -> None:
    for target in planned:
        parts = target.split("/")
        for length in range(2, len(parts)):
            above = planned.get("/".join(parts[:length]))
            if above is not None and above.kind not in (FileKind.DIRECTORY, FileKind.ARCHIVE):
                source, path = places[target]
                problems.add(
                    "file-beneath-file",
                    f"'{target}' is below '{above.path}', which is not a directory ({above.kind})",
                    source.document,
                    path,
                    "choose another path for one of them",
                )
