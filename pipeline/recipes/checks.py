"""How an image is tested: checks as values, with the recipe's values written into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.documents import DocumentPath
from pipeline.errors import RecipeError
from pipeline.model.smoke import Check, CheckKind, Expectation, Limits, SmokePlan
from pipeline.recipes.fields import PORT_MOST, pattern_of
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.quantities import Malformed
from pipeline.recipes.schema import CheckDocument, ExpectDocument, LimitsDocument, ReadyDocument
from pipeline.recipes.sources import Source
from pipeline.render import evaluate

_FITTING = {
    CheckKind.COMMAND: frozenset({"command", "expect", "stdin", "user", "within"}),
    CheckKind.PORT: frozenset({"port", "expect", "send", "within"}),
    CheckKind.LOG: frozenset({"log", "within"}),
    CheckKind.STOP: frozenset({"stop"}),
}
_FITTING_EXPECTATION = {CheckKind.PORT: frozenset({"stdout", "stdout_is"})}


def plan_smoke(source: Source, scope: Mapping[str, object], problems: Problems) -> SmokePlan:
    """The smoke plan of the recipe in `source`, its texts rendered with `scope`.

    Problems: `check-kind`, `check-key-misplaced`, `check-duplicate`, `check-after-stop`, `checks-missing`,
    `pattern-malformed`, `port-malformed`, `template-undefined`, …
    """
    smoke = source.recipe.smoke
    if smoke is None:
        return SmokePlan()
    builder = _Builder(source, scope, problems)
    ready = builder.check(smoke.ready, ("smoke", "ready"), "ready") if smoke.ready else None
    checks: list[Check] = []
    names: set[str] = set()
    stopped = False
    for index, document in enumerate(smoke.checks):
        path: DocumentPath = ("smoke", "checks", index)
        if document.name in names:
            message = f"two checks are called '{document.name}'"
            builder.refuse("check-duplicate", message, "give each its own name", path, "name")
        names.add(document.name)
        if stopped:
            builder.refuse(
                "check-after-stop",
                "after a check that stops the instance nothing can be asked",
                "move the stop to the end",
                path,
            )
        check = builder.check(document, path, document.name)
        stopped = stopped or document.stop is not None
        if check is not None:
            checks.append(check)
    if not smoke.checks:
        message = "the image is launched, but nothing is asked of it"
        builder.refuse("checks-missing", message, "add at least one check", ("smoke",))
    return SmokePlan(ready, tuple(checks), plan_limits(smoke.limits), smoke.instances)


def plan_limits(document: LimitsDocument) -> Limits:
    """The limits that a document asks for."""
    return Limits(
        milli_cpus=document.cpus,
        memory=document.memory,
        pids=document.pids,
        bandwidth=document.bandwidth,
        open_files=document.open_files,
        tmpfs=document.tmpfs,
        enforce=document.enforce,
    )


@dataclass(frozen=True, slots=True)
class _Builder:
    source: Source
    scope: Mapping[str, object]
    problems: Problems

    def refuse(self, code: str, message: str, hint: str, path: DocumentPath, *inner: str | int) -> None:
        self.problems.add(code, message, self.source.document, (*path, *inner), hint)

    def check(self, document: CheckDocument | ReadyDocument, path: DocumentPath, name: str) -> Check | None:
        kinds = [kind for kind in CheckKind if getattr(document, kind, None) is not None]
        if len(kinds) != 1:
            known = [str(kind) for kind in CheckKind if hasattr(document, kind)]
            given = f"{' and '.join(kinds)} stand here together" if kinds else "nothing says what is asked"
            hint = f"write exactly one of {', '.join(known)}"
            self.refuse("check-kind", f"the check '{name}' has no one kind: {given}", hint, path)
            return None
        kind = kinds[0]
        before = len(self.problems)
        self._refuse_misplaced(document, kind, path)
        within = document.within
        stop = getattr(document, "stop", None)
        if stop is not None:
            within = stop.within
            expect = Expectation(exit_code=stop.exit_code)
        else:
            expect = self._expectation(document.expect, kind, path)
        if kind is CheckKind.COMMAND and not document.command:
            self.refuse("list-empty", "the command is empty", "name a program", path, "command")
        check = Check(
            name=name,
            kind=kind,
            within=within,
            expect=expect,
            command=self._words(document.command, path),
            stdin=self._text(getattr(document, "stdin", None), path, "stdin"),
            user=document.user or "",
            port=self._port(document.port, path),
            send=self._text(getattr(document, "send", None), path, "send"),
            pattern=self._pattern(document.log, path, "log") or "",
            place=place(self.source.document, path),
        )
        return check if len(self.problems) == before else None

    def _refuse_misplaced(self, document: CheckDocument | ReadyDocument, kind: CheckKind, path: DocumentPath) -> None:
        for key in sorted(document.model_fields_set - _FITTING[kind] - {"name"}):
            if getattr(document, key) is None:
                continue
            fitting = ", ".join(sorted(_FITTING[kind] - {kind.value}))
            message = f"'{key}' has no meaning beside '{kind}'"
            hint = "write 'within' inside 'stop'" if kind is CheckKind.STOP and key == "within" else None
            hint = hint or (f"'{kind}' goes with {fitting}" if fitting else f"remove '{key}'")
            self.refuse("check-key-misplaced", message, hint, path, key)

    def _expectation(self, document: ExpectDocument | None, kind: CheckKind, path: DocumentPath) -> Expectation:
        if document is None:
            return Expectation(exit_code=0 if kind is CheckKind.COMMAND else None)
        inner = (*path, "expect")
        fitting = _FITTING_EXPECTATION.get(kind)
        for key in sorted(document.model_fields_set - (fitting or document.model_fields_set)):
            message = f"'{key}' has no meaning for '{kind}'"
            self.refuse("check-key-misplaced", message, "what a port answers is 'stdout'", inner, key)
        return Expectation(
            exit_code=document.exit_code if kind is CheckKind.COMMAND else None,
            stdout=self._pattern(document.stdout, inner, "stdout"),
            stderr=self._pattern(document.stderr, inner, "stderr"),
            stdout_is=None if document.stdout_is is None else self._text(document.stdout_is, inner, "stdout_is"),
        )

    def _text(self, text: str | None, path: DocumentPath, *inner: str | int) -> str:
        if text is None:
            return ""
        try:
            return evaluate(text, self.scope, place=place(self.source.document, (*path, *inner)))
        except RecipeError as error:
            self.problems.take(error)
            return ""

    def _words(self, words: Sequence[str] | None, path: DocumentPath) -> tuple[str, ...]:
        return tuple(self._text(word, path, "command", index) for index, word in enumerate(words or ()))

    def _pattern(self, text: str | None, path: DocumentPath, key: str) -> str | None:
        if text is None:
            return None
        rendered = self._text(text, path, key)
        try:
            return pattern_of(rendered)
        except Malformed as error:
            self.refuse(error.code, str(error), error.hint, path, key)
            return None

    def _port(self, text: str | None, path: DocumentPath) -> int:
        if text is None:
            return 0
        rendered = self._text(text, path, "port")
        if rendered.isascii() and rendered.isdigit() and 1 <= int(rendered[:6]) <= PORT_MOST:
            return int(rendered)
        if rendered:
            message = f"'{rendered[:40]}' is not a port"
            self.refuse("port-malformed", message, "write a port number from 1 to 65535", path, "port")
        return 0
