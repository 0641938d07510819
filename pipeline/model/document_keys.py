"""Declaration of a YAML mapping's keys as dataclass fields, with the form of each value.

What a person writes is turned into values by the room of recipes, which makes schema and reference of the same.
"""

from __future__ import annotations

import dataclasses
from enum import Enum, StrEnum, auto
from typing import Any

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image_keys import ImageKey
from pipeline.model.quantities import WholeNumber


class ValueForm(Enum):
    """Forms of a value; templates are rendered in those that say so."""

    TEXT = auto()
    """Text, rendered."""
    LINE = auto()
    """One line of text, rendered."""
    VERBATIM = auto()
    """One line of text, not rendered."""
    WORDS = auto()
    """A list of texts, rendered."""
    VERBATIM_LINES = auto()
    """A list of lines as they stand there."""
    PACKAGES = auto()
    """A list of package names or patterns, rendered; names are those of the platform."""
    NAMED_TEXTS = auto()
    """Texts by name, rendered."""
    SWITCH = auto()
    """True or false."""
    NUMBER = auto()
    """A whole number that is not negative."""
    PORT = auto()
    """The number of a port, rendered."""
    PORTS = auto()
    """A list of ports (`8080/tcp`), rendered."""
    PATH = auto()
    """An absolute path."""
    MODE = auto()
    """Permissions."""
    OWNER = auto()
    """A user or group, by name or number."""
    SHA256 = auto()
    """The digits of a checksum."""
    SIGNAL = auto()
    """The name of a signal."""
    DURATION = auto()
    """Milliseconds."""
    PATTERN = auto()
    """A regular expression, rendered; "" if none is given."""
    RULES = auto()
    """Rules for a value, rendered; a text is short for `matches`."""
    EXACT_RULES = auto()
    """Rules for a value, rendered; a text is short for `is`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One member of an enum; `what` is the noun for one in messages."""

    words: type[StrEnum]
    what: str


@dataclass(frozen=True, slots=True)
class SettingValue:
    """The form of an image's setting; of environment and labels, rules by name."""

    key: ImageKey


DocumentForm = ValueForm | Choice | WholeNumber | SettingValue


@dataclass(frozen=True, slots=True)
class DocumentKey:
    """A key of a mapping: its form and meaning, and an example.

    `written` is the key's text ("": the field's name). `optional`: if the key is not given, it is None in the recipe's
    model instead of the field's default (None: if that default is empty, or depends on the form).
    """

    form: DocumentForm
    meaning: str
    example: object = None
    written: str = ""
    optional: bool | None = None


def document_key(
    form: DocumentForm,
    meaning: str,
    default: object = dataclasses.MISSING,
    *,
    example: object = None,
    written: str = "",
    optional: bool | None = None,
) -> Any:  # noqa: ANN401  as dataclasses.field, which it is
    """Return a dataclass field that is a key of a mapping, required if it has no default."""
    declared = DocumentKey(form, meaning, example, written, optional)
    return dataclasses.field(default=default, metadata={"key": declared})


def keys_of(subject: type) -> dict[str, tuple[DocumentKey, dataclasses.Field[object]]]:
    """Return the keys of the mapping that a dataclass is made from, by its fields' names."""
    return {field.name: (field.metadata["key"], field) for field in dataclasses.fields(subject)}
