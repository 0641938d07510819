"""Make model fields and rendered values of checks from their declared forms.

Both parts of a form are here: its type, with validator and JSON Schema, and its rendering.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, assert_never

from pydantic import BeforeValidator, Field, create_model

from pipeline.model.check_kind import CheckDeclaration, ShortForm
from pipeline.model.document_keys import (
    Choice,
    DocumentForm,
    DocumentKey,
    SettingValue,
    ValueForm,
    keys_of,
)
from pipeline.model.quantities import WholeNumber
from pipeline.recipes.fields import (
    Duration,
    ExposedPort,
    FileMode,
    Line,
    Owner,
    Pattern,
    Port,
    Sha256,
    SignalName,
    Strict,
    TargetPath,
    TextValue,
    annotation_of,
    choice,
)
from pipeline.recipes.image_fields import check_field
from pipeline.recipes.rule_documents import ExactRules, MatchRules

_LISTS = frozenset({ValueForm.WORDS, ValueForm.VERBATIM_LINES, ValueForm.PACKAGES, ValueForm.PORTS})
_UNSAID = frozenset({ValueForm.PORT, ValueForm.RULES, ValueForm.EXACT_RULES})
"""Forms of which a value that is not given is None in the model."""


def kind_annotation(kind: CheckDeclaration[Any, Any]) -> Any:  # noqa: ANN401  it is a type made at run time
    """Return the annotation of the value of a kind of check: a model, or a bare value's."""
    if not isinstance(kind.form, type):
        return _annotation(kind.form)
    name = "".join(word.capitalize() for word in mapping_title(kind).split(" ")) + "Document"
    fields: dict[str, Any] = {member: _field(key, field) for member, (key, field) in keys_of(kind.form).items()}
    model = create_model(name, __base__=Strict, __doc__=kind.prose or kind.form.__doc__, **fields)
    return Annotated[model, _short(kind.short)] if kind.short else model


def mapping_title(kind: CheckDeclaration[Any, Any]) -> str:
    """Return the heading of a kind's mapping in the reference; "" if its value is a bare one."""
    return (kind.title or f"{kind.name} check") if isinstance(kind.form, type) else ""


def _field(key: DocumentKey, field: dataclasses.Field[object]) -> tuple[Any, Any]:
    if isinstance(key.form, SettingValue):
        return check_field(key.form.key, ExactRules)
    default, annotation = field.default, _annotation(key.form)
    optional = default in (None, "") or key.form in _UNSAID if key.optional is None else key.optional
    told: dict[str, Any] = {"description": key.meaning, "alias": key.written or None}
    if key.example is not None:
        told["examples"] = [key.example]
    if default is dataclasses.MISSING:
        return annotation, Field(**told)
    if optional:
        return annotation | None, Field(default=None, **told)
    if key.form in _LISTS:
        default = []
    elif key.form is ValueForm.NAMED_TEXTS:
        default = {}
    return annotation, Field(default=default, **told)


def _short(short: ShortForm) -> BeforeValidator:
    def write_out(value: object) -> object:
        if value == short.word:
            return {}
        return {short.key: value} if isinstance(value, list) else value

    return BeforeValidator(write_out, json_schema_input_type=str | list[str | int] | Mapping[str, object])


def _annotation(form: DocumentForm) -> Any:  # noqa: ANN401  it is a type made at run time
    match form:
        case ValueForm():
            return _TYPES[form]
        case Choice(words, what):
            return Annotated[words, choice(words, what)]
        case WholeNumber():
            return annotation_of(form)
        case SettingValue():
            raise AssertionError("a setting is a key of a mapping")
        case other:
            assert_never(other)


_TYPES: Mapping[ValueForm, Any] = {
    ValueForm.TEXT: TextValue,
    ValueForm.LINE: Line,
    ValueForm.VERBATIM: Line,
    ValueForm.WORDS: list[TextValue],
    ValueForm.VERBATIM_LINES: list[Line],
    ValueForm.PACKAGES: list[Line],
    ValueForm.NAMED_TEXTS: dict[Line, TextValue],
    ValueForm.SWITCH: bool,
    ValueForm.NUMBER: Annotated[int, Field(ge=0)],
    ValueForm.PORT: Port,
    ValueForm.PORTS: list[ExposedPort],
    ValueForm.PATH: TargetPath,
    ValueForm.MODE: FileMode,
    ValueForm.OWNER: Owner,
    ValueForm.SHA256: Sha256,
    ValueForm.SIGNAL: SignalName,
    ValueForm.DURATION: Duration,
    ValueForm.PATTERN: Pattern,
    ValueForm.RULES: MatchRules,
    ValueForm.EXACT_RULES: ExactRules,
}
