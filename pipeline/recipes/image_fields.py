"""Make the model fields of the keys under `image` from their table."""

from __future__ import annotations

from typing import Any, assert_never

from pydantic import Field

from pipeline.model.image_keys import NAMED, ImageKey, KeyForm
from pipeline.recipes.fields import (
    ExposedPort,
    FolderPath,
    ImageUser,
    Line,
    SignalName,
    TargetPath,
    TextValue,
    VariableName,
)


def key_field(key: ImageKey) -> tuple[Any, Any]:
    """Return the type and the pydantic field of a key under `image` in a recipe."""
    kind: Any
    match key.form:
        case KeyForm.VARIABLES:
            kind = dict[VariableName, TextValue]
        case KeyForm.LABELS:
            kind = dict[Line, TextValue]
        case _:
            kind = _unnamed(key.form) | None
    return kind, _told(key, key.meaning, key.example)


def check_field(key: ImageKey, rules: Any) -> tuple[Any, Any]:  # noqa: ANN401  a type, which only questions.py has
    """Return type and field of a key of the check `image`; for values by name, `rules` for each."""
    kind: Any
    match key.form:
        case KeyForm.VARIABLES:
            kind = dict[VariableName, rules]
        case KeyForm.LABELS:
            kind = dict[Line, rules]
        case _:
            kind = _unnamed(key.form) | None
    return kind, _told(key, key.checked, key.check_example)


def _told(key: ImageKey, meaning: str, example: object) -> Any:  # noqa: ANN401  as Field
    default: object = {} if key.form in NAMED else None
    return Field(default=default, description=meaning, examples=None if example is None else [example])


def _unnamed(form: KeyForm) -> Any:  # noqa: ANN401  a type
    match form:
        case KeyForm.WORDS:
            return list[TextValue]
        case KeyForm.USER:
            return ImageUser
        case KeyForm.FOLDER:
            return FolderPath
        case KeyForm.PORTS:
            return list[ExposedPort]
        case KeyForm.PATHS:
            return list[TargetPath]
        case KeyForm.SIGNAL:
            return SignalName
        case KeyForm.VARIABLES | KeyForm.LABELS:
            raise AssertionError(f"{form} is a mapping")
        case other:
            assert_never(other)
