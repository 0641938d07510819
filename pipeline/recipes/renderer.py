"""Render and validate the texts of a recipe's `smoke` section.

Templates in the texts get the recipe's values; the rendered texts are validated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from pipeline.errors import RecipeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.published_port import PORT_MOST
from pipeline.model.quantities import Malformed, parse_size
from pipeline.model.value_rules import Rule, Rules
from pipeline.patterns import is_in_any_text
from pipeline.recipes.fields import pattern_of
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.rule_documents import RuleDocument
from pipeline.render import evaluate_template
from pipeline.yaml_documents import DocumentPath

PathInDocument = tuple[str | int, ...]

_RULE_HINT = "write is, matches, lacks, min or max"


@dataclass(frozen=True, slots=True)
class Renderer:
    """A renderer of the texts of one recipe file.

    Errors are added to `problems`. `rendered` collects (path, template, rendered text) of each text that a template
    made another. `names` are the platform's names of the recipe's packages,
    where they differ.
    """

    source: RecipeFile
    scope: Mapping[str, object]
    problems: Problems
    rendered: list[tuple[PathInDocument, str, str]] = field(default_factory=list)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def refuse(self, code: str, message: str, hint: str, path: DocumentPath, *inner: str | int) -> None:
        """Add a problem."""
        self.problems.add(code, message, self.source.document, (*path, *inner), hint)

    def text(self, text: str | None, path: DocumentPath, *inner: str | int) -> str:
        """Render a text; "" if there is none."""
        return "" if text is None else self._render(text, (*path, *inner)) or ""

    def line(self, text: str, path: DocumentPath, *inner: str | int) -> str:
        """Render a text that must not be blank then."""
        made = self._render(text, (*path, *inner))
        if made is not None and not made.strip():
            hint = "set the value that it names, or remove the key"
            self.refuse("rule-empty", f"'{text[:40]}' makes no text, so nothing is asked", hint, path, *inner)
        return made or ""

    def _render(self, text: str, where: PathInDocument) -> str | None:
        """Render a text; None after adding a problem."""
        try:
            made = evaluate_template(text, self.scope, place=place(self.source.document, where))
        except RecipeError as error:
            self.problems.take(error)
            return None
        if made != text:
            self.rendered.append((where, text, made))
        return made

    def words(self, words: Sequence[str], path: DocumentPath) -> tuple[str, ...]:
        """Render each text of a list."""
        return tuple(self.text(word, path, index) for index, word in enumerate(words))

    def packages(self, words: Sequence[str], path: DocumentPath) -> tuple[str, ...]:
        """Render names and patterns of packages, and replace names by the platform's."""
        written = tuple(self.line(word, path, index) for index, word in enumerate(words))
        found = tuple(one for word in written for one in self.names.get(word, (word,)))
        if written and not found:
            message = f"none of these packages is there on this platform: {', '.join(written)}"
            hint = "name another package too, or replace the check under 'checks' of the platform"
            self.refuse("check-without-packages", message, hint, path)
        return found

    def pattern(self, text: str | None, path: DocumentPath, *inner: str | int) -> str | None:
        """Render a text that must be a regular expression.

        It must not be empty, as that is found in any text.
        """
        rendered = None if text is None else self._render(text, (*path, *inner))
        if rendered is None:
            return None
        if not rendered:
            made = f", made by '{text[:40]}'" if text else ""
            hint = 'write a pattern, or `is: ""` if the text must be empty'
            self.refuse("rule-empty", f"the pattern is empty{made}, and any text matches it", hint, path, *inner)
            return None
        try:
            return pattern_of(rendered)
        except Malformed as error:
            self.refuse(error.code, str(error), error.hint, path, *inner)
            return None

    def port(self, text: str | None, path: DocumentPath, *inner: str | int) -> int:
        """Render a port's number; 0 if none is given."""
        rendered = None if text is None else self._render(text, (*path, *inner))
        if rendered is None:
            return 0
        if rendered.isascii() and rendered.isdigit() and len(rendered) <= 5 and 1 <= int(rendered) <= PORT_MOST:
            return int(rendered)
        message = f"'{rendered[:40]}' is not a port"
        self.refuse("port-malformed", message, "write a port number from 1 to 65535", path, *inner)
        return 0

    def ports(self, written: Sequence[str], path: DocumentPath, *inner: str | int) -> tuple[str, ...]:
        """Render ports: `8080` → `8080/tcp`."""
        found = []
        for index, text in enumerate(written):
            number, _, protocol = text.partition("/")
            found.append(f"{self.port(number, path, *inner, index)}/{protocol or 'tcp'}")
        return tuple(found)

    def rules(self, documents: Sequence[RuleDocument] | None, path: DocumentPath, *inner: str | int) -> Rules:
        """Render rules for a value; a list that is given must not be empty."""
        where = (*path, *inner)
        if documents is not None and not documents:
            self.refuse("rule-empty", "the list has no rule", _RULE_HINT, where)
        return tuple(self._rule(document, where, index) for index, document in enumerate(documents or ()))

    def refuse_needless(self, documents: Sequence[RuleDocument] | None, path: DocumentPath, *inner: str | int) -> None:
        """Refuse patterns that must be found in a text and are found in any.

        For texts that there are in any case, possibly empty. Patterns are looked at as they are written: what a
        template makes may mean that nothing is asked.
        """
        positions = self.source.document.positions
        for index, document in enumerate(documents or ()):
            text = document.matches
            if not text or document.json_path or not is_in_any_text(text):
                continue
            listed = (*path, *inner, index)
            where = listed if listed in positions else (*path, *inner)
            where = (*where, "matches") if (*where, "matches") in positions else where
            hint = 'write what the text must have, such as "\\\\S" for anything at all, or remove the pattern'
            self.refuse("rule-empty", f"'{text[:40]}' is found in any text, also in an empty one", hint, where)

    def named_rules(
        self, documents: Mapping[str, Sequence[RuleDocument]], path: DocumentPath, *inner: str | int
    ) -> tuple[tuple[str, Rules], ...]:
        """Render rules by name: headers, labels, variables."""
        return tuple((name, self.rules(rules, path, *inner, name)) for name, rules in documents.items())

    def _rule(self, document: RuleDocument, path: PathInDocument, index: int) -> Rule:
        before = len(self.problems)
        positions = self.source.document.positions
        where = (*path, index) if (*path, index) in positions else path

        def at(key: str) -> PathInDocument:
            return (*where, key) if (*where, key) in positions else where

        rule = Rule(
            equals=None if document.equals is None else self.text(document.equals, at("is")),
            matches=self.pattern(document.matches, at("matches")),
            lacks=self.pattern(document.lacks, at("lacks")),
            least=self._number(document.least, at("min")),
            most=self._number(document.most, at("max")),
            at=document.json_path or "",
        )
        if len(self.problems) == before and rule == Rule(at=rule.at) and not rule.at:
            self.refuse("rule-empty", "the rule has no condition", _RULE_HINT, where)
        return rule

    def _number(self, text: str | None, path: PathInDocument) -> float | None:
        if text is None:
            return None
        rendered = self._render(text, path)
        if rendered is None:
            return None
        try:
            return float(rendered)
        except ValueError:
            pass
        try:
            return float(parse_size(rendered))
        except Malformed:
            hint = "write a number, or a number with K, M, G, T"
            self.refuse("number-malformed", f"'{rendered[:40]}' is not a number", hint, path)
            return None
