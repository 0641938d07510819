"""The `image` smoke check: the image config has the expected settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Any

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Contradiction,
    DraftedCheck,
    Drafting,
    Subject,
    subject_of,
)
from pipeline.model.document_keys import SettingValue, document_key
from pipeline.model.image_keys import IMAGE_KEYS, NAMED, UNORDERED, ConfigForm, ImageKey, KeyForm
from pipeline.model.value_comparison import mismatch
from pipeline.model.value_rules import Rules

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check


def _fact(key: ImageKey) -> tuple[str, Any, Any]:
    form, told = SettingValue(key), (key.checked, () if key.form in NAMED else None)
    if key.form in NAMED:
        return key.name, tuple[tuple[str, Rules], ...], document_key(form, *told, example=key.check_example)
    kind: Any = str if key.stored is ConfigForm.STRING else tuple[str, ...]
    return key.name, kind | None, document_key(form, *told, example=key.check_example)


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class _ImageFacts(Subject):
        """Stands for the fields, which are those of the table of image keys."""

        def __init__(self, **asked: object) -> None: ...

else:
    _ImageFacts = make_dataclass(
        "_ImageFacts", [_fact(key) for key in IMAGE_KEYS], frozen=True, slots=True, bases=(Subject,)
    )  # fmt: skip


class ImageFacts(_ImageFacts):
    """Settings that the image's configuration has; None or empty: not asked.

    Of environment and labels, only the named ones are checked.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ImageAnswer(CheckAnswer):
    """The answer of an image check: empty, as the report has the image's configuration anyway."""


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


def _refuse(facts: ImageFacts, given: frozenset[str]) -> Iterator[Contradiction]:
    if facts == ImageFacts():
        yield Contradiction("check-empty", "no setting of the image is given", "write user, entrypoint, labels …")


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    return Attempt(ImageAnswer(), settled=True)


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    config = probe.image.config
    facts: DraftedCheck = {"user": config.user} if config.user else {}
    if config.exposed_ports:
        facts["exposed_ports"] = list(config.exposed_ports)
    if facts:
        yield {"name": "is configured as it was", "image": facts}


DECLARATION = CheckDeclaration(
    name="image",
    rank=110,
    meaning="the image's configuration",
    example={"user": "nginx"},
    form=ImageFacts,
    title="image check",
    prose="The image's configuration, as it must be.",
    refuse=_refuse,
    answer=ImageAnswer,
    ask=_ask,
    judge=_judge,
    draft=Drafting(6, _draft),
)
