"""Recognise a publication of which nothing has changed, and repeat its answer.

After a publication that found everything in place, a `RememberedPublication` is kept in the store under its seal: what
it read, and what it asked the registry, with the answers. The next one of the same request compares what was read and
asks the same questions again. Where anything differs, or may, the ordinary publication is made
(docs/decisions/0064-publications-recognised.md). This module loads nothing that signs, judges or publishes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.messages import print_lines
from pipeline.digest import Digest, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.damage_memory import DamageMemory
from pipeline.mirror.tag_memory import TagMemory
from pipeline.progress import task
from pipeline.snapshots import LIFETIME, look_at_file, look_at_output, process_inputs, program_digest
from pipeline.transfer.question_log import FORMAT, KnownAnswer, NotCompared

if TYPE_CHECKING:
    from pipeline.cli.app import CommandContext
    from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """A publication as it was asked for.

    `layouts`: those found for the images; `to`: a mirror; `former`: with any, it is not remembered.
    """

    layouts: tuple[Path, ...]
    to: Address
    key: Path
    rules: Path | None
    tags: tuple[str, ...]
    known_as: str
    former: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class RememberedPublication:
    """All that a publication read, what it asked the registry, and what it said.

    `made`: when, in seconds since the epoch; `damage`: what `DamageMemory.latest` returned before; `settled_until`:
    until when nothing has to be signed of its tags, in milliseconds since the epoch. `folders` are (path, entries) of
    layouts and reports; `key` is the store's seal on the key's file, `rules` the resolved path, mode and digest of the
    operator's. `numbers` are (repository, tag, fingerprint, number): the highest statement by the key that was seen on
    each tag. `programs`, `modules` and `code` tell of relbuild and what it has loaded. `questions`: fields of each
    `KnownAnswer`; `scopes` are theirs. `lines` and `answer` (with --json) are what it said.
    """

    made: float
    damage: str
    settled_until: int
    folders: Sequence[tuple[str, Mapping[str, object]]]
    key: str
    rules: Sequence[object] | None
    numbers: Sequence[tuple[str, str, str, int]]
    programs: Sequence[str]
    modules: Sequence[str]
    code: str
    questions: Sequence[Mapping[str, Any]]
    scopes: Sequence[str]
    lines: Sequence[str]
    answer: Mapping[str, object]


def name_of_publication(request: PublishRequest, store: Store, environment: Mapping[str, str]) -> Digest | None:
    """Return the name under which a publication is remembered, None if it cannot be told."""
    with contextlib.suppress(OSError):
        return identity(
            "remembered-publication",
            FORMAT,
            layouts=request.layouts,
            to=str(request.to),
            key=request.key,
            rules=request.rules,
            tags=request.tags,
            known_as=request.known_as,
            **process_inputs(store.seal, environment),
        )
    return None


def repeat_publication(
    name: Digest, request: PublishRequest, context: CommandContext, store: Store
) -> tuple[Mapping[str, object], ...] | None:
    """Tell what an unchanged publication said, and return its answer; None if it must be made."""
    known = store.recall_as(name, _read)
    now = context.clock()
    if known is None or not known.made <= now < known.made + LIFETIME or now * 1000 >= known.settled_until:
        return None
    if DamageMemory(store, request.to.url).latest() != known.damage:
        return None  # the registry's answers were found to be wrong since
    with contextlib.suppress(OSError):
        answers = [KnownAnswer(**one) for one in known.questions]
        with task(context.progress, "compare", request.to.url) as running:
            answered = request.to.form.ask_again(request.to, answers, known.scopes, context.environment)
            same = _reads_the_same(known, request, store)  # While the registry answers.
            try:
                asked = answered()
            except NotCompared as why:
                running.note(f"not compared: {why}; it is published in the ordinary way" if same else "changed")
                return None
            if asked is None or not same:
                running.note("changed")
                return None
            running.note(f"{asked.count()} answers, none changed")
        print_lines(*known.lines)
        return ({**known.answer, "requests": dict(asked.kinds)},)
    return None


def look_at_key(path: Path, store: Store) -> str | None:
    """Return the store's seal on a key file's place, mode and content; None if it is no file."""
    found = look_at_file(str(path))
    return store.seal(f"{found}".encode()) if found is not None else None


def look_at_rules(path: Path | None) -> list[object] | None:
    """Return the resolved path, mode and digest of the operator's rules; None without them."""
    found = look_at_file(str(path)) if path is not None else None
    return None if found is None else list(found)


def _reads_the_same(known: RememberedPublication, request: PublishRequest, store: Store) -> bool:
    """Return whether all that is read on this machine is what it was. Raises OSError."""
    if look_at_key(request.key, store) != known.key or look_at_rules(request.rules) != known.rules:
        return False
    for folder, entries in known.folders:
        stamped = {name for name, entry in entries.items() if isinstance(entry, list)}
        if look_at_output(folder, stamped) != entries:
            return False
    memory = TagMemory(store)
    if any(memory.seen(url, tag, Digest.parse(key)) != number for url, tag, key, number in known.numbers):
        return False
    return program_digest(known.programs, frozenset(known.modules))[0] == known.code


def _read(value: object) -> RememberedPublication:
    if not isinstance(value, dict):
        raise TypeError("a remembered publication is an object")
    return RememberedPublication(**value)
