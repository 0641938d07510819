"""Comparison of values with rules, and excerpts of long texts that decide the same.

A comparison returns what is wrong with a value, "" if it meets the rules.

A text that is not too long is recorded whole. Of a longer one the record keeps, for each rule, the part that decides
(the lines around a pattern's match, the value at a JSON path), beside size and digest of the whole. An excerpt can show
that something is in a text, never that something is *not* in it; the record says that it is an excerpt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.jsonpath import look_up
from pipeline.model.value_rules import Rule
from pipeline.patterns import Undecided, search_pattern

SHOWN_LIMIT = 2000
"""Characters of an answer that a report shows."""

TEXT_LIMIT = 64 << 10
"""Characters of a text that are recorded whole: what servers answer and log in a test is shorter, and some dozens of
such texts still fit into a report that is pulled with the image."""

EXCERPT_LIMIT = 4000
"""Characters of an excerpt."""

WHOLE_LIMIT = 1 << 20
"""Characters of a text that is recorded whole after all because no excerpt shows that it is right."""

_AROUND = 200
"""Characters on each side of a pattern's match in a line that is longer than an excerpt."""

_LOOKAROUND = re.compile(r"\(\?<?[=!]|\\[Zz]")
"""Parts of a pattern by which it depends on more of a text than what it finds."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The part of a text that decides about one rule.

    `reached`: the rule's JSON path exists, and `text` is its value or an excerpt of it; else `text` tells why the path
    does not exist.
    """

    text: str
    reached: bool = True


@dataclass(frozen=True, slots=True)
class RecordedText:
    """A text of an answer, in which U+FFFD stands for what was no UTF-8.

    `size` and `digest` are of the whole, as UTF-8. `excerpts`: None where `text` is the whole; else there is one for
    each rule, and `text` is only a beginning for people.
    """

    text: str
    size: int
    digest: Digest
    excerpts: tuple[Excerpt, ...] | None = None

    @classmethod
    def of(cls, data: bytes | str) -> RecordedText:
        """Return the record of a whole text."""
        text = readable(data)
        encoded = text.encode()
        return cls(text, len(encoded), Digest.of(encoded))


def readable(data: bytes | str) -> str:
    """Return bytes or a text as a text that UTF-8 can hold.

    A text may hold halves of surrogate pairs (file names, JSON).
    """
    encoded = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    return encoded.decode(errors="replace")


EMPTY_TEXT = RecordedText.of("")


def recorded_mismatch(rules: Sequence[Rule], said: RecordedText, what: str, *, tell: bool = False) -> str:
    """Return what is wrong with a recorded text by the rules, as `mismatch` does.

    Also when the record contradicts itself.
    """
    if said.excerpts is None:
        encoded = said.text.encode(errors="replace")
        if len(encoded) != said.size or Digest.of(encoded) != said.digest:
            return f"{what} is not the text of which size and digest were recorded"
        return mismatch(rules, said.text, what, tell=tell)
    if said.size <= TEXT_LIMIT and rules:
        return f"{what} is short, and only a part of it was recorded"
    if len(said.excerpts) != len(rules):
        return f"{what} was recorded for {len(said.excerpts)} rules, there are {len(rules)}"
    for rule, excerpt in zip(rules, said.excerpts, strict=True):
        at = f"{what} at {rule.at}" if rule.at else what
        wrong = _held(rule, excerpt.text, at, tell=tell) if excerpt.reached else f"{at}: {excerpt.text}"
        if wrong:
            return wrong
    return ""


def record_text(rules: Sequence[Rule], said: RecordedText) -> RecordedText:
    """Return the text as it is recorded.

    It has the same verdict, and is no longer than `TEXT_LIMIT` where excerpts give the same one. A text of which no
    excerpt shows that it is right is kept whole up to `WHOLE_LIMIT`.
    """
    if said.excerpts is not None or len(said.text) <= TEXT_LIMIT:
        return said
    excerpts = [_excerpt(rule, said.text) for rule in rules]
    known = tuple(excerpt for excerpt in excerpts if excerpt is not None)
    if len(known) < len(excerpts):
        if len(said.text) <= WHOLE_LIMIT:
            return said
        known = tuple(excerpt or Excerpt("no part of it shows that it is right", reached=False) for excerpt in excerpts)
    return replace(said, text=said.text[:SHOWN_LIMIT], excerpts=known)


def _excerpt(rule: Rule, text: str) -> Excerpt | None:
    """Return the part of a long text that decides about a rule; None if no part does.

    If the whole is wrong, a part is enough that is wrong too, such as its beginning.
    """
    value = text
    if rule.at:
        try:
            value = look_up(text, rule.at)
        except (LookupError, RecursionError, ValueError) as error:
            return Excerpt(readable(str(error)[:SHOWN_LIMIT]) or "it does not exist", reached=False)
    wanted = bool(_held(rule, value, "", tell=False))
    for part in _parts(rule, value):
        if len(part) <= EXCERPT_LIMIT and bool(_held(rule, part, "", tell=False)) == wanted:
            return Excerpt(readable(part))
    return None


def _parts(rule: Rule, text: str) -> Iterator[str]:
    """Candidates for an excerpt, the best first."""
    yield text.strip()
    for pattern in (rule.lacks, rule.matches):
        try:
            where = search_pattern(pattern, text) if pattern is not None else None
        except Undecided:
            where = None
        if where is not None:
            start = text.rfind("\n", 0, where[0]) + 1
            end = text.find("\n", where[1])
            yield text[start : end if end >= 0 else len(text)]
            yield text[max(0, where[0] - _AROUND) : where[1] + _AROUND]
            yield text[where[0] : where[1]]
    yield text[-SHOWN_LIMIT:]
    yield text[:SHOWN_LIMIT]
    yield ""


def mismatch(rules: Sequence[Rule], text: str, what: str, *, tell: bool = False) -> str:
    """Return what is wrong with `text`, which the message calls `what`; empty if nothing is.

    `tell`: the message quotes the text.
    """
    for rule in rules:
        wrong = _wrong(rule, text, what, tell=tell)
        if wrong:
            return wrong
    return ""


def mismatch_is_final(rules: Sequence[Rule], text: str) -> bool:
    """Return whether a text that still grows is wrong for good.

    It is if it matches already what it must not match, or takes too long to search: more text takes longer.
    """
    try:
        return any(rule.lacks is not None and not rule.at and pattern_found(rule.lacks, text) for rule in rules)
    except Undecided:
        return True


def unread_rest(rules: Sequence[Rule], read: bytes, what: str, hint: str) -> str:
    """Return why the beginning of a text does not tell whether the whole is right, or "".

    It tells where what was read decides: a text in which a pattern is found has it whatever follows.
    """
    text = readable(read)
    if not any(_rest_decides(rule, text) for rule in rules):
        return ""
    return f"only the first {len(read)} bytes of {what} were read, and the rest may be wrong; {hint}"


def _rest_decides(rule: Rule, text: str) -> bool:
    if rule.matches is None or rule != Rule(matches=rule.matches):
        return rule != Rule()
    if _LOOKAROUND.search(rule.matches):
        return True
    try:
        found = search_pattern(rule.matches, text)
    except Undecided:
        return True
    # A match at the end of what was read may be none of the whole, as of `OK$`.
    return found is None or found[1] == len(text)


def pattern_found(pattern: str, text: str) -> bool:
    """Return whether the pattern is somewhere in the text.

    `^` and `$` are ends of lines. Raises Undecided.
    """
    return search_pattern(pattern, text) is not None


def quote_answer(data: bytes | str, limit: int = SHOWN_LIMIT) -> str:
    """Return an answer for people, stripped and cut to `limit` characters."""
    text = (data.decode(errors="replace") if isinstance(data, bytes) else data).strip()
    return text if len(text) <= limit else f"{text[:limit]} …"


def _wrong(rule: Rule, text: str, what: str, *, tell: bool) -> str:
    if rule.at:
        what = f"{what} at {rule.at}"
        try:
            text = look_up(text, rule.at)
        except ValueError as error:
            return f"{what} is not JSON: {error}"
        except (LookupError, RecursionError) as error:
            return f"{what}: {error.args[0] if error.args else error}"
    return _held(rule, text, what, tell=tell)


def _held(rule: Rule, text: str, what: str, *, tell: bool) -> str:
    """Return what is wrong with a value by a rule, whose `at` is resolved already."""
    # Short values are quoted here; longer answers are shown once, by the caller.
    quoted = f" but '{quote_answer(text, 200)}'" if rule.at or tell else ""
    if rule.equals is not None and text.strip() != rule.equals.strip():
        return f"{what} is not '{rule.equals}'{quoted}"
    try:
        if rule.matches is not None and not pattern_found(rule.matches, text):
            return f"{what} does not match '{rule.matches}'{quoted}"
        if rule.lacks is not None and (where := search_pattern(rule.lacks, text)):
            line = text[text.rfind("\n", 0, where[0]) + 1 :].partition("\n")[0]
            return f"{what} must not match '{rule.lacks}': {quote_answer(line, 200)}"
    except Undecided as undecided:
        return f"{what} cannot be matched: {undecided}; use a pattern with fewer repetitions"
    if rule.least is not None or rule.most is not None:
        return _outside(rule, text.strip(), what)
    return ""


def _outside(rule: Rule, text: str, what: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return f"{what} is not a number: '{quote_answer(text, 80)}'"
    if rule.least is not None and not number >= rule.least:
        return f"{what} is {text}, less than {rule.least:g}"
    if rule.most is not None and not number <= rule.most:
        return f"{what} is {text}, more than {rule.most:g}"
    return ""
