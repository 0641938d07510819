"""Convert a check's value in a recipe to the values of its kind, by their declared forms."""

from __future__ import annotations

from typing import Any, assert_never

from pipeline.model.check_kind import CheckDeclaration
from pipeline.model.document_keys import (
    Choice,
    DocumentForm,
    SettingValue,
    ValueForm,
    keys_of,
)
from pipeline.model.image_keys import ImageKey, KeyForm
from pipeline.model.quantities import WholeNumber
from pipeline.model.smoke import Check
from pipeline.recipes.fields import Strict
from pipeline.recipes.renderer import PathInDocument, Renderer
from pipeline.yaml_documents import DocumentPath


def plan_kind(
    check: Check,
    kind: CheckDeclaration[Any, Any],
    written: object,
    path: DocumentPath,
    renderer: Renderer,
) -> Check:
    """Return the check with the value that a recipe gives for its kind.

    Problems: those that the kind declares, and those of values.
    """
    inner = (*path, kind.name)
    given: frozenset[str] = frozenset()
    if isinstance(kind.form, type):
        assert isinstance(written, Strict)
        given = frozenset(name for name in keys_of(kind.form) if getattr(written, name) is not None)
        given &= written.model_fields_set
        asked = kind.form(**_values(kind.form, written, inner, renderer))
    else:
        asked = _value(kind.form, written, inner, renderer)
    for wrong in kind.refuse(asked, given):
        renderer.refuse(wrong.code, wrong.message, wrong.hint, inner, *((wrong.key,) if wrong.key else ()))
    return kind.plan(check, asked)


def _values(form: type, written: Strict, path: PathInDocument, renderer: Renderer) -> dict[str, object]:
    """Return the values of all given keys; the others have their defaults."""
    positions = renderer.source.document.positions
    found: dict[str, object] = {}
    for name, (key, _) in keys_of(form).items():
        value = getattr(written, name)
        if name not in written.model_fields_set or value is None:
            continue
        # A short form of a mapping has no keys.
        where = (*path, key.written or name)
        made = _value(key.form, value, where if where in positions else path, renderer)
        if made or key.form is not ValueForm.RULES:
            found[name] = made
    return found


def _value(form: DocumentForm, value: Any, path: PathInDocument, renderer: Renderer) -> object:  # noqa: ANN401
    match form:
        case ValueForm():
            return _plain_value(form, value, path, renderer)
        case Choice() | WholeNumber():
            return value
        case SettingValue(key):
            return _setting(key, value, path, renderer)
        case other:
            assert_never(other)


def _plain_value(form: ValueForm, value: Any, path: PathInDocument, renderer: Renderer) -> object:  # noqa: ANN401
    match form:
        case ValueForm.TEXT:
            return renderer.text(value, path)
        case ValueForm.LINE:
            return renderer.line(value, path)
        case ValueForm.WORDS:
            return renderer.words(value, path)
        case ValueForm.PACKAGES:
            return renderer.packages(value, path)
        case ValueForm.NAMED_TEXTS:
            return tuple((name, renderer.text(text, path, name)) for name, text in value.items())
        case ValueForm.PORT:
            return renderer.port(value, path)
        case ValueForm.PORTS:
            return renderer.ports(value, path)
        case ValueForm.PATTERN:
            return renderer.pattern(value, path) or ""
        case ValueForm.RULES | ValueForm.EXACT_RULES:
            return renderer.rules(value, path)
        case ValueForm.VERBATIM_LINES:
            return tuple(value)
        case (
            ValueForm.VERBATIM
            | ValueForm.SWITCH
            | ValueForm.NUMBER
            | ValueForm.PATH
            | ValueForm.MODE
            | ValueForm.OWNER
            | ValueForm.SHA256
            | ValueForm.SIGNAL
            | ValueForm.DURATION
        ):
            return value
        case other:
            assert_never(other)


def _setting(key: ImageKey, value: Any, path: PathInDocument, renderer: Renderer) -> object:  # noqa: ANN401
    match key.form:
        case KeyForm.WORDS:
            return renderer.words(value, path)
        case KeyForm.PORTS:
            return renderer.ports(value, path)
        case KeyForm.PATHS:
            return tuple(value)
        case KeyForm.VARIABLES | KeyForm.LABELS:
            return renderer.named_rules(value, path)
        case KeyForm.USER | KeyForm.FOLDER | KeyForm.SIGNAL:
            return value
        case other:
            assert_never(other)
