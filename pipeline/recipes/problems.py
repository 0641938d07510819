"""Collection of a document's problems with their places, and validation by a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import Problem, RecipeError
from pipeline.recipes.fields import Strict, hint_as_written, kind_of_value
from pipeline.yaml_documents import YAML_PROBLEM_LIMIT, DocumentPath, YamlDocument

_LONGEST = 1000
"""Characters of one problem's message, which may quote anything."""

_COMPARED = 10 * YAML_PROBLEM_LIMIT
"""Problems up to which an unknown key is compared with known ones for a suggestion: far more than are reported. It
takes a millisecond each, and a document can have as many as it has lines."""

Model = TypeVar("Model", bound=Strict)

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
}


class Problems:
    """The problems of some documents, in the order of the documents and of their lines."""

    def __init__(self) -> None:
        self._found: list[tuple[str, int, int, Problem]] = []
        self._order: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, code: str, message: str, document: YamlDocument, path: DocumentPath, hint: str) -> None:
        """Add a problem with the value at `path` in `document`."""
        self.keep(Problem(code, _short(message), _short(place(document, path)), _short(hint)))

    def keep(self, problem: Problem) -> None:
        """Add a problem that has its place already."""
        name, _, rest = (problem.place or "").partition(":")
        digits = rest.split(":", 1)[0]
        order = self._order.setdefault(name, len(self._order))
        line = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0
        self._found.append((name, order, line, problem))

    def take(self, error: RecipeError) -> None:
        """Add all problems of an error."""
        for problem in error.problems:
            self.keep(problem)

    def sorted(self) -> list[Problem]:
        """Return all problems by document and line."""
        return [found[3] for found in sorted(self._found, key=lambda found: found[1:3])]

    def stop_if_any(self) -> None:
        """Raise RecipeError with all problems if there are any."""
        if self._found:
            told = self.sorted()
            more = len(told) - YAML_PROBLEM_LIMIT
            last = [Problem("problems-more", f"{more} more problems", told[0].place)] if more > 0 else []
            raise RecipeError.of([*told[:YAML_PROBLEM_LIMIT], *last])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST * 3 // 4]} … {text[-_LONGEST // 5 :]}"


def place(document: YamlDocument, path: DocumentPath) -> str:
    """Return the place of a path in a document: `mysql.yaml:14: layers[1].without[0]`."""
    line, whole = document.place(path), (*document.within, *path)
    return f"{line}: {path_text(whole)}" if whole else line


def path_text(path: DocumentPath) -> str:
    """Return a path in a document as text: `layers[1].without[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


RECIPE_REFERENCE = "see `relbuild help recipe`"
"""The hint where there is no more specific one."""


def validate_document(
    model: type[Model], document: YamlDocument, problems: Problems, *, reference: str = RECIPE_REFERENCE
) -> Model | None:
    """Validate the document as a `model`; None after adding all its problems.

    `reference` is the hint at the document's reference.
    """
    if document.value is None:
        problems.add("document-empty", "the document is empty", document, (), "write `name:` and `layers:`")
        return None
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _translate(details, model, document, problems, reference)
        return None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word nearest to `word`, if any is; hyphens equal underscores."""
    plain = {name.replace("_", "-").lower(): name for name in known}
    near = difflib.get_close_matches(word.replace("_", "-").lower(), list(plain), n=1, cutoff=0.6)
    return plain[near[0]] if near else None


def _translate(
    details: ErrorDetails, model: type[Strict], document: YamlDocument, problems: Problems, reference: str
) -> None:
    """Convert an error of pydantic to a problem in the words of recipes, and add it."""
    path = _document_path(details["loc"], document)
    context = details.get("ctx", {})
    found = details["type"]
    if found == "extra_forbidden":
        key = str(path[-1])
        known = _keys(model, path[:-1])
        near = nearest(key, known) if len(problems) < _COMPARED else None
        listed = f"did you mean '{near}'?" if near else f"known keys: {', '.join(known)}"
        way_out = _repo_file_option(key, known) or listed
        problems.add("key-unknown", f"unknown key '{key[:60]}'", document, path, way_out)
    elif found == "missing":
        key = str(details["loc"][-1])
        problems.add("key-missing", f"the key '{key}' is missing", document, path, f"add '{key}:'")
    elif found in _EXPECTED:
        given = kind_of_value(details["input"])
        hint = "remove the key, or give it a value" if given == "nothing" else reference
        problems.add("type-wrong", f"{_EXPECTED[found]} is expected here, not {given}", document, path, hint)
    elif found == "too_short":
        problems.add("list-empty", "the list is empty", document, path, "add an entry, or remove the list")
    elif "hint" in context:
        written = document.numbers.get(path)
        hint = context["hint"] if written is None else hint_as_written(context["hint"], written)
        problems.add(found, details["msg"], document, path, hint)
    else:
        message = details["msg"].replace("Input should be", "the value should be")
        problems.add("value-out-of-range", message, document, path, reference)


def _repo_file_option(key: str, known: Sequence[str]) -> str:
    """Return the meaning of an option of `.repo` files among a repository's keys, else ""."""
    from pipeline.recipes.repo_file_options import OPTIONS, Treatment  # Here and not above: only this error needs it.

    option = OPTIONS.get(key) if "baseurls" in known else None
    if option is None or option.treatment is Treatment.OBEYED:
        return ""
    return f"leave it out; it is an option of .repo files ({option.treatment.value}: {option.meaning})"


def _document_path(location: Sequence[str | int], document: YamlDocument) -> DocumentPath:
    """Convert pydantic's location to a path in the document.

    Names of union members are left out.
    """
    path: list[str | int] = []
    value: Any = document.value
    for part in location:
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not in_list and not (isinstance(value, dict) and part in value):
            continue
        value = value[part]
        path.append(part)
    return tuple(path)


def _keys(model: type[Strict], path: DocumentPath) -> list[str]:
    """Return the allowed keys at `path` in a document of `model`."""
    models: list[type[Strict]] = [model]
    for part in path:
        if isinstance(part, int):
            continue
        inner: list[type[Strict]] = []
        for candidate in models:
            for name, field in candidate.model_fields.items():
                if (field.alias or name) == part:
                    inner += _models_in(field.annotation)
        models = inner or models
    every = (field.alias or name for found in models for name, field in found.model_fields.items())
    return list(dict.fromkeys(every))  # Alternatives, as a repository and a .repo file, have keys in common.


def _models_in(annotation: Any) -> list[type[Strict]]:  # noqa: ANN401
    """Return the document models in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    if get_origin(annotation) in {Annotated, Union, UnionType, list, dict}:
        return [found for argument in get_args(annotation) for found in _models_in(argument)]
    return []
