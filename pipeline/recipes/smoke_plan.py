"""The checks of an image as values, with the recipe's values written into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.model.checks import CheckKind, declaration
from pipeline.model.limits import LIMITS, Limits
from pipeline.model.smoke import CONTAINED_BY, Check, Expectation, Neighbours, SmokePlan
from pipeline.model.value_rules import Rule
from pipeline.recipes.check_schema import (
    CheckDocument,
    ExpectDocument,
    NeighboursDocument,
    ReadyDocument,
)
from pipeline.recipes.check_subjects import plan_subject
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.renderer import Renderer
from pipeline.recipes.schema import LimitsDocument, SmokeDocument, is_given
from pipeline.recipes.sources import RecipeFile
from pipeline.yaml_documents import DocumentPath

_TALKING = (CheckKind.HTTP, CheckKind.PORT, CheckKind.SOCKET)
_RESTARTING = 30_000
"""Milliseconds for the stop before a restart: more than checks get, because databases flush."""


def plan_smoke(source: RecipeFile, scope: Mapping[str, object], problems: Problems) -> SmokePlan:
    """The smoke plan of the recipe in `source`, its texts rendered with `scope`.

    Problems: `check-kind`, `check-key-misplaced`, `check-duplicate`, `check-after-stop`, `checks-missing`,
    `neighbours-silent`, `neighbours-unlimited`, `pattern-malformed`, `port-malformed`, `template-undefined`, …
    """
    smoke = source.recipe.smoke
    if smoke is None:
        return SmokePlan()
    builder = _Builder(Renderer(source, scope, problems))
    ready = builder.check(smoke.ready, ("smoke", "ready"), "ready") if smoke.ready else None
    checks: list[Check] = []
    names: set[str] = set()
    stopped = False
    for index, document in enumerate(smoke.checks):
        path: DocumentPath = ("smoke", "checks", index)
        if document.name in names:
            message = f"two checks have the name '{document.name}'"
            builder.refuse("check-duplicate", message, "give each check its own name", path, "name")
        names.add(document.name)
        if stopped:
            builder.refuse(
                "check-after-stop",
                "a check follows the check that stops the instance",
                "move the 'stop' check to the end",
                path,
            )
        check = builder.check(document, path, document.name)
        stopped = stopped or document.stop is not None
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


def plan_limits(document: LimitsDocument) -> Limits:
    """The limits that a document asks for."""
    return Limits(enforce=document.enforce, **{limit.member: getattr(document, limit.name) for limit in LIMITS})


@dataclass(frozen=True, slots=True)
class _Builder:
    renderer: Renderer

    def refuse(self, code: str, message: str, hint: str, path: DocumentPath, *inner: str | int) -> None:
        self.renderer.refuse(code, message, hint, path, *inner)

    def check(self, document: CheckDocument | ReadyDocument, path: DocumentPath, name: str) -> Check | None:
        kinds = [kind for kind in CheckKind if getattr(document, kind, None) is not None]
        if len(kinds) != 1:
            known = [str(kind) for kind in CheckKind if hasattr(document, kind)]
            given = " and ".join(f"'{kind}'" for kind in kinds) or "none"
            hint = f"write exactly one of {', '.join(known)}"
            self.refuse("check-kind", f"the check '{name}' must have one kind, but has {given}", hint, path)
            return None
        kind = kinds[0]
        problems = self.renderer.problems
        before = len(problems)
        self._refuse_misplaced(document, kind, path)
        within = document.within
        stop = getattr(document, "stop", None)
        if stop is not None:
            within = stop.within
            expect = Expectation(exit_code=stop.exit_code)
        else:
            expect = self._expectation(document.expect, kind, path)
        if kind is CheckKind.RESTART and not is_given(document, "within"):
            within = _RESTARTING
        if kind is CheckKind.COMMAND and not document.command:
            self.refuse("list-empty", "the command is empty", "write a program and its arguments", path, "command")
        check = Check(
            name=name,
            kind=kind,
            within=within,
            expect=expect,
            command=self.renderer.words(document.command, path, "command"),
            stdin=self.renderer.text(getattr(document, "stdin", None), path, "stdin"),
            user=document.user or "",
            port=self.renderer.port(document.port, path, "port"),
            socket=document.socket or "",
            send=self.renderer.text(document.send, path, "send"),
            log=self.renderer.rules(document.log, path, "log"),
            signal=stop.signal or "" if stop is not None else "",
            subject=plan_subject(document, kind, path, self.renderer),
            place=place(self.renderer.source.document, path),
        )
        return check if len(problems) == before else None

    def neighbours(self, document: NeighboursDocument, smoke: SmokeDocument, asked: list[Check]) -> Neighbours:
        path = ("smoke", "neighbours")
        if not any(check.kind in _TALKING for check in asked):
            message = "neighbours cannot be measured without a network check"
            self.refuse("neighbours-silent", message, "add an 'http', 'port' or 'socket' check", path)
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

    def _refuse_misplaced(self, document: CheckDocument | ReadyDocument, kind: CheckKind, path: DocumentPath) -> None:
        beside = declaration(kind).beside | {kind.value}
        for key in sorted(document.model_fields_set - beside - {"name"}):
            if getattr(document, key) is None:
                continue
            fitting = ", ".join(sorted(beside - {kind.value}))
            message = f"'{key}' cannot be combined with '{kind}'"
            hint = "write 'within' inside 'stop'" if kind is CheckKind.STOP and key == "within" else None
            hint = hint or (f"'{kind}' allows {fitting}" if fitting else f"remove '{key}'")
            self.refuse("check-key-misplaced", message, hint, path, key)

    def _expectation(self, document: ExpectDocument | None, kind: CheckKind, path: DocumentPath) -> Expectation:
        status = (Rule(equals="200"),) if kind is CheckKind.HTTP else ()
        if document is None:
            return Expectation(exit_code=0 if kind is CheckKind.COMMAND else None, status=status)
        inner = (*path, "expect")
        fitting = declaration(kind).expects or document.model_fields_set
        for key in sorted(document.model_fields_set - fitting):
            message = f"'{key}' is not applicable to '{kind}'"
            known = " or ".join(f"'{name}'" for name in sorted(fitting))
            self.refuse("check-key-misplaced", message, f"{declaration(kind).shows} {known}", inner, key)
        rules = self.renderer.rules
        exactly = document.stdout_is
        return Expectation(
            exit_code=document.exit_code if kind is CheckKind.COMMAND else None,
            stdout=(
                *rules(document.stdout, inner, "stdout"),
                *(() if exactly is None else (Rule(equals=self.renderer.text(exactly, inner, "stdout_is")),)),
            ),
            stderr=rules(document.stderr, inner, "stderr"),
            status=rules(document.status, inner, "status") or status,
            headers=self.renderer.named_rules(document.headers, inner, "headers"),
            body=rules(document.body, inner, "body"),
        )
