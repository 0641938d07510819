"""Checks of the image's configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any

from pipeline.model.check_kind import CheckDeclaration, subject_of
from pipeline.model.image_keys import IMAGE_KEYS, NAMED, UNORDERED, ConfigForm, ImageKey, KeyForm
from pipeline.model.value_comparison import mismatch
from pipeline.model.value_rules import Rules

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


def _fact(key: ImageKey) -> tuple[str, Any, Any]:
    if key.form in NAMED:
        return key.name, tuple[tuple[str, Rules], ...], field(default=())
    return key.name, (str if key.stored is ConfigForm.STRING else tuple[str, ...]) | None, field(default=None)


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class _ImageFacts:
        """Stands for the fields, which are those of the table of image keys."""

        def __init__(self, **asked: object) -> None: ...

else:
    _ImageFacts = make_dataclass("_ImageFacts", [_fact(key) for key in IMAGE_KEYS], frozen=True, slots=True)


class ImageFacts(_ImageFacts):
    """Settings that the image's configuration has; None or empty: not asked.

    Of environment and labels only the named ones are looked at.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """The image's configuration was looked at, which the report has anyway."""


def _judge(check: Check, seen: ImageAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(ImageFacts, check)
    for key in IMAGE_KEYS:
        if key.form in NAMED:
            continue
        wanted, has = getattr(facts, key.name), getattr(config, key.name) or key.default
        if key.form in UNORDERED:
            wanted, has = _sorted(wanted), _sorted(has or ())
        elif key.stored is not ConfigForm.STRING:
            has = has or ()
        if wanted is not None and wanted != has:
            return f"{key.name} is {_written(has)}, not {_written(wanted)}"
    for key in IMAGE_KEYS:
        value = getattr(config, key.name)
        match key.form:
            case KeyForm.VARIABLES:
                named = {name: text for name, _, text in (line.partition("=") for line in value)}
            case KeyForm.LABELS:
                named = dict(value)
            case _:
                continue
        if wrong := _among(key.one, getattr(facts, key.name), named.get):
            return wrong
    return ""


def _among(what: str, wanted: Iterable[tuple[str, Rules]], get: Callable[[str], str | None]) -> str:
    for name, rules in wanted:
        value = get(name)
        wrong = (
            f"there is no {what} '{name}'" if value is None else mismatch(rules, value, f"{what} '{name}'", tell=True)
        )
        if wrong:
            return wrong
    return ""


def _sorted(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(values))


def _written(value: object) -> str:
    return " ".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value) or "empty"


DECLARATION = CheckDeclaration(ImageAnswer, _judge, subject=ImageFacts)
