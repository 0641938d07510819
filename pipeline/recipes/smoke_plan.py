"""Make the `SmokePlan` of a recipe from its `smoke` section, templates rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import CheckDeclaration, Effect, Expectation
from pipeline.model.checks import CHECK_KINDS, CheckKind
from pipeline.model.document_keys import keys_of
from pipeline.model.limits import LIMITS, Limits
from pipeline.model.smoke import CONTAINED_BY, Check, Neighbours, RenderedText, SmokePlan
from pipeline.model.smoke_questions import LATENCY_KINDS
from pipeline.model.value_rules import Rule
from pipeline.recipes.check_schema import (
    CheckDocument,
    ExpectDocument,
    NeighboursDocument,
    ReadyDocument,
)
from pipeline.recipes.check_subjects import plan_kind
from pipeline.recipes.problems import Problems, nearest, path_text, place
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.renderer import Renderer
from pipeline.recipes.requests import NO_NAMES, PlatformNames
from pipeline.recipes.schema import LimitsDocument, SmokeDocument, is_given
from pipeline.yaml_documents import DocumentPath

AnyKind = CheckDeclaration[Any, Any]


def plan_smoke(
    source: RecipeFile,
    scope: Mapping[str, object],
    problems: Problems,
    *,
    names: PlatformNames = NO_NAMES,
    upper: Sequence[RecipeFile] = (),
) -> SmokePlan:
    """Make the smoke plan of the recipe in `source`, its texts rendered with `scope`.

    `names` are the platform's names of packages; checks of entries in `upper` replace those of the same name. Problems:
    `check-replaces-nothing`, `check-kind`, `check-key-misplaced`, `check-duplicate`, `check-after-stop`,
    `checks-missing`, `neighbours-silent`, `neighbours-unlimited`, `pattern-malformed`, `port-malformed`, …
    """
    smoke = source.recipe.smoke
    others = _replacements(smoke.checks if smoke else (), upper, problems)
    if smoke is None:
        return SmokePlan()
    builder = _Builder(Renderer(source, scope, problems, names=names))
    ready = builder.check(smoke.ready, ("smoke", "ready"), "ready") if smoke.ready else None
    checks: list[Check] = []
    seen: set[str] = set()
    stopped = False
    for index, document in enumerate(smoke.checks):
        path: DocumentPath = ("smoke", "checks", index)
        if document.name in seen:
            message = f"two checks have the name '{document.name}'"
            builder.refuse("check-duplicate", message, "give each check its own name", path, "name")
        seen.add(document.name)
        if stopped:
            builder.refuse(
                "check-after-stop",
                "a check follows the check that stops the instance",
                "move the 'stop' check to the end",
                path,
            )
        above, where, wanted = others.get(document.name, (source, path, document))
        asking = builder if above is source else _Builder(Renderer(above, scope, problems))
        check = asking.check(wanted, where, wanted.name)
        stopped = stopped or any(kind.effect is Effect.ENDS for kind in _kinds_of(wanted))
        if check is not None:
            checks.append(check)
    if not smoke.checks:
        message = "the image is launched, but has no checks"
        builder.refuse("checks-missing", message, "add at least one check", ("smoke",))
    neighbours = None
    if smoke.neighbours is not None:
        neighbours = builder.neighbours(smoke.neighbours, smoke, [*checks, *([ready] if ready else [])])
    return SmokePlan(
        ready,
        tuple(checks),
        plan_limits(smoke.limits),
        smoke.instances,
        tuple(dict.fromkeys(smoke.variants)),
        builder.renderer.text(smoke.upgrade_from, ("smoke",), "upgrade_from"),
        neighbours,
    )


def _replacements(
    replaced: Sequence[CheckDocument], upper: Sequence[RecipeFile], problems: Problems
) -> dict[str, tuple[RecipeFile, DocumentPath, CheckDocument]]:
    """Return the checks of entries by name, the uppermost of each.

    `replaced` are the recipe's. Problems: `check-replaces-nothing`, `check-duplicate`.
    """
    known = [check.name for check in replaced]
    found: dict[str, tuple[RecipeFile, DocumentPath, CheckDocument]] = {}
    for source in upper:
        seen: set[str] = set()
        for index, check in enumerate(source.entry.checks if source.entry else ()):
            path: DocumentPath = ("checks", index)
            if check.name not in known:
                near = nearest(check.name, known)
                hint = "name one of the recipe's checks" if known else "write the recipe's checks in its 'smoke'"
                hint = f"did you mean '{near}'?" if near else hint
                message = f"the recipe has no check '{check.name}' to replace"
                problems.add("check-replaces-nothing", message, source.document, (*path, "name"), hint)
            if check.name in seen:
                message = f"two checks of one entry have the name '{check.name}'"
                problems.add("check-duplicate", message, source.document, (*path, "name"), "remove one of the two")
            seen.add(check.name)
            found[check.name] = (source, path, check)
    return found


def plan_limits(document: LimitsDocument) -> Limits:
    """Convert a document's limits to `Limits`."""
    return Limits(enforce=document.enforce, **{limit.member: getattr(document, limit.name) for limit in LIMITS})


@dataclass(frozen=True, slots=True)
class _Builder:
    renderer: Renderer

    def refuse(self, code: str, message: str, hint: str, path: DocumentPath, *inner: str | int) -> None:
        self.renderer.refuse(code, message, hint, path, *inner)

    def check(self, document: CheckDocument | ReadyDocument, path: DocumentPath, name: str) -> Check | None:
        kinds = _kinds_of(document)
        if len(kinds) != 1:
            known = [kind.name for kind in CHECK_KINDS if hasattr(document, kind.name)]
            given = " and ".join(f"'{kind.name}'" for kind in kinds) or "none"
            hint = f"write exactly one of {', '.join(known)}"
            self.refuse("check-kind", f"the check '{name}' must have one kind, but has {given}", hint, path)
            return None
        kind = kinds[0]
        problems = self.renderer.problems
        before, rendered = len(problems), len(self.renderer.rendered)
        self._refuse_misplaced(document, kind, path)
        within = document.within
        if kind.within is not None and not is_given(document, "within"):
            within = kind.within
        check = Check(
            name=name,
            kind=CheckKind(kind.name),
            within=within,
            expect=self._expectation(document.expect, kind, path),
            stdin=self.renderer.text(getattr(document, "stdin", None), path, "stdin"),
            user=document.user or "",
            send=self.renderer.text(document.send, path, "send"),
            place=place(self.renderer.source.document, path),
        )
        check = plan_kind(check, kind, getattr(document, kind.name), path, self.renderer)
        if isinstance(document, CheckDocument):
            self._refuse_needless(document, kind, path)
        made = tuple(
            RenderedText(path_text(where[len(path) :]), template, text)
            for where, template, text in self.renderer.rendered[rendered:]
        )
        return replace(check, from_templates=made) if len(problems) == before else None

    def neighbours(self, document: NeighboursDocument, smoke: SmokeDocument, asked: list[Check]) -> Neighbours:
        path = ("smoke", "neighbours")
        if not any(check.kind in LATENCY_KINDS for check in asked):
            message = "neighbours cannot be measured without a network check"
            names = [f"'{kind}'" for kind in LATENCY_KINDS]
            hint = f"add an {', '.join(names[:-1])} or {names[-1]} check"
            self.refuse("neighbours-silent", message, hint, path)
        for misbehaviour in document.misbehave:
            limit = CONTAINED_BY.get(misbehaviour)
            if limit is not None and getattr(smoke.limits, limit.name) is None:
                message = f"'{misbehaviour}' without a limit would affect the whole machine"
                self.refuse("neighbours-unlimited", message, f"add 'smoke.limits.{limit.name}'", path, "misbehave")
        return Neighbours(
            count=document.count,
            misbehave=tuple(dict.fromkeys(document.misbehave)),
            factor=document.factor,
            floor=document.floor * 1000,
            lasting=document.lasting,
        )

    def _refuse_misplaced(self, document: CheckDocument | ReadyDocument, kind: AnyKind, path: DocumentPath) -> None:
        beside = kind.beside | {kind.name}
        for key in sorted(document.model_fields_set - beside - {"name"}):
            if getattr(document, key) is None:
                continue
            fitting = ", ".join(sorted(kind.beside))
            message = f"'{key}' cannot be combined with '{kind.name}'"
            inside = isinstance(kind.form, type) and key in keys_of(kind.form)
            hint = f"write '{key}' inside '{kind.name}'" if inside and key == "within" else None
            hint = hint or (f"'{kind.name}' allows {fitting}" if fitting else f"remove '{key}'")
            self.refuse("check-key-misplaced", message, hint, path, key)

    def _refuse_needless(self, document: CheckDocument, kind: AnyKind, path: DocumentPath) -> None:
        """Refuse patterns that any log, output or body has.

        A header, a label, a file's text need not be there, and what `port` and `socket` answer is waited for.
        """
        refuse, expect = self.renderer.refuse_needless, document.expect
        if kind.name == "log":
            refuse(getattr(document, kind.name), path, kind.name)
        if expect is not None:
            if kind.name == "command":
                refuse(expect.stdout, path, "expect", "stdout")
            refuse(expect.stderr, path, "expect", "stderr")
            refuse(expect.body, path, "expect", "body")

    def _expectation(self, document: ExpectDocument | None, kind: AnyKind, path: DocumentPath) -> Expectation:
        if document is None:
            return kind.expected
        inner = (*path, "expect")
        fitting = kind.expects or document.model_fields_set
        for key in sorted(document.model_fields_set - fitting):
            message = f"'{key}' is not applicable to '{kind.name}'"
            known = " or ".join(f"'{name}'" for name in sorted(fitting))
            self.refuse("check-key-misplaced", message, f"{kind.shows} {known}", inner, key)
        rules = self.renderer.rules
        exactly = document.stdout_is
        return Expectation(
            exit_code=document.exit_code if "exit_code" in kind.expects else None,
            stdout=(
                *rules(document.stdout, inner, "stdout"),
                *(() if exactly is None else (Rule(equals=self.renderer.text(exactly, inner, "stdout_is")),)),
            ),
            stderr=rules(document.stderr, inner, "stderr"),
            status=rules(document.status, inner, "status") or kind.expected.status,
            headers=self.renderer.named_rules(document.headers, inner, "headers"),
            body=rules(document.body, inner, "body"),
        )


def _kinds_of(document: CheckDocument | ReadyDocument) -> list[AnyKind]:
    return [kind for kind in CHECK_KINDS if getattr(document, kind.name, None) is not None]
