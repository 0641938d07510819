"""The digest of what a recipe includes, by which a lock is compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.beneath import GivenFolder, PathEscape, escape_error
from pipeline.digest import Digest, canonical_json
from pipeline.errors import RecipeError
from pipeline.yaml_documents import YAML_SIZE_LIMIT, load_yaml


def digest_included(path: Path, folder: Path, entries: Sequence[str] | None) -> Digest:
    """Read and digest an included recipe, as `included_digest` does."""
    try:
        content = Digest.of(GivenFolder(folder).read(path, YAML_SIZE_LIMIT))
        if entries is not None:
            content = Digest.of(canonical_json(_without_other_entries(path, folder, entries)))
    except PathEscape as error:
        raise escape_error(error, str(path)) from None
    except OSError as error:
        raise RecipeError("recipe-unreadable", f"{path} cannot be read: {error}", place=str(path)) from error
    return content


def _without_other_entries(path: Path, folder: Path, entries: Sequence[str]) -> object:
    """Return the values of an included recipe; of its `platforms`, those of `entries` alone."""
    document = load_yaml(path, given=GivenFolder(folder)).value
    if not isinstance(document, Mapping) or not isinstance(document.get("platforms"), Mapping):
        return _without_floats(document)
    chosen = [[name, document["platforms"].get(name)] for name in entries]
    return _without_floats([{key: value for key, value in document.items() if key != "platforms"}, chosen])


def _without_floats(value: object) -> object:
    """Return a document's value with its floats as text, which canonical JSON takes."""
    if isinstance(value, Mapping):
        return {key: _without_floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_floats(inner) for inner in value]
    return repr(value) if isinstance(value, float) else value
