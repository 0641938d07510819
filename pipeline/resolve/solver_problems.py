"""Convert libsolv's problems, and unmatched requests, to `Problem`s with sentences.

They name the cause, the line of the recipe that requests it, and the way out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import solv

from pipeline.errors import Problem
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.recipe import Recipe, Request
from pipeline.resolve.pool import PackagePool

SENTENCES = 12
"""Sentences of one problem: the first ones have the cause, a hundred would hide it."""


_EXCLUDING = (
    solv.Solver.SOLVER_RULE_PKG_CONFLICTS,
    solv.Solver.SOLVER_RULE_PKG_SAME_NAME,
    solv.Solver.SOLVER_RULE_PKG_OBSOLETES,
    solv.Solver.SOLVER_RULE_PKG_IMPLICIT_OBSOLETES,
)
"""Rules by which two packages cannot be installed together."""


@dataclass(frozen=True, slots=True)
class RequestJob:
    """A job of the solver with the request that it comes from."""

    request: Request
    job: solv.Job


def unmatched_request(package_pool: PackagePool, request: Request, disabled: Sequence[int]) -> Problem:
    """Make the problem of a request that no package matches.

    `disabled` are packages that would, if they were not excluded or hidden by modules.
    """
    hidden = [(one, why) for one in disabled if (why := package_pool.hidden(one))]
    if hidden and len(hidden) == len(disabled):
        listed = "".join(f"\n    {package_pool.nevra(one)} is {why}" for one, why in hidden[:SENTENCES])
        message = f"only packages that modules hide match '{request.text}'{listed}"
        return Problem("package-missing", message, request.place, hidden[0][1].hint)
    if disabled:
        listed = ", ".join(sorted(str(package_pool.nevra(one)) for one in disabled)[:5])
        return Problem(
            "package-missing",
            f"only excluded packages match '{request.text}': {listed}",
            request.place,
            "change 'exclude', the pins, or the modules" if hidden else "change 'exclude' or the pins",
        )
    names = sorted({one.name for one in package_pool.solvables()})
    close = _close_matches(request.text, names, 3, 0.7)
    named = _package_name(request.text, names)
    if any(sign in request.text for sign in "<>=") and " " not in request.text:
        hint = "put spaces around the comparison: 'openssl >= 3'"
    elif named:
        hint = f"of {named} there is {_versions(package_pool, named)}"
    elif close:
        hint = f"did you mean {' or '.join(close)}?"
    else:
        hint = "check the name, or add the repository that provides it"
    return Problem(
        "package-missing",
        f"no package matches '{request.text}' in the platform's repositories",
        request.place,
        hint,
    )


def unknown_group(request: Request, names: Sequence[str]) -> Problem:
    """No repository has a group or environment. `names` are those that there are."""
    close = _close_matches(request.text, names, 3, 0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else f"groups: {', '.join(names[:20])}"
    return Problem(
        "package-missing",
        f"no group or environment '{request.text}' in the platform's repositories",
        request.place,
        hint if names else "no repository of the platform has groups",
    )


def pin_conflict(package_pool: PackagePool, name: str, version: str, has: Sequence[str], recipe: Recipe) -> Problem:
    """Make the problem of a pin to another version than the parent image has."""
    below = recipe.parent.name if recipe.parent else ""
    return Problem(
        "parent-fixed",
        f"pins: {name} is pinned to {version}, but the parent image '{below}' has {', '.join(has)}",
        recipe.path.name,
        "a parent's packages are fixed: pin it in the parent's recipe, or change this pin; "
        f"{_offered(package_pool, name)}",
    )


def pin_unsatisfied(
    package_pool: PackagePool, name: str, version: str, others: Collection[int], recipe: Recipe
) -> Problem:
    """Make the problem of a pin that no package fits; `others` are packages of its name."""
    have = ", ".join(sorted({package_pool.nevra(one).evr for one in others}))
    for solvable in package_pool.solvables():
        why = package_pool.hidden(int(solvable.id)) if solvable.name == name else None
        nevra = package_pool.nevra(int(solvable.id))
        versions = (nevra.version, f"{nevra.version}-{nevra.release}")
        forms = (*versions, *(f"{nevra.epoch}:{one}" for one in versions))
        if why is not None and any(fnmatchcase(form, version) for form in forms):
            message = f"pins: {nevra} is {why}"
            return Problem("pin-unsatisfied", message, recipe.path.name, f"{why.hint}; available: {have}")
    message = f"no repository has {name} in version {version}"
    return Problem("pin-unsatisfied", message, recipe.path.name, f"available: {have}")


def _offered(package_pool: PackagePool, name: str) -> str:
    return f"available: {_versions(package_pool, name)}"


def _versions(package_pool: PackagePool, name: str) -> str:
    found = {package_pool.nevra(one.id).evr for one in package_pool.solvables() if one.name == name}
    return ", ".join(sorted(found))


def _package_name(text: str, names: Collection[str]) -> str:
    """Return the package that a request names, also with a version, or "".

    A version is as in `a >= 2` or `a-2-1`.
    """
    words = text.split()
    name = words[0] if len(words) > 1 else text
    while name not in names:
        name, dash, end = name.rpartition("-")
        if not dash or not end[:1].isdigit():
            return ""
    return name


def explain_problems(
    package_pool: PackagePool,
    problems: Sequence[solv.Problem],
    asked: Sequence[RequestJob],
    parent: Recipe | None = None,
) -> list[Problem]:
    """Return one Problem for each problem of the solver.

    `parent` is the recipe of the image whose packages are installed.
    """
    return [_explain(package_pool, problem, asked, parent) for problem in problems]


def _explain(
    package_pool: PackagePool, problem: solv.Problem, asked: Sequence[RequestJob], parent: Recipe | None
) -> Problem:
    requests = _requests(problem, asked)
    infos = [info for rule in problem.findallproblemrules() for info in rule.allinfos()]
    told = sorted({(_rank(info), _sentence(package_pool, info)) for info in infos})
    sentences = list(dict.fromkeys(sentence for _, sentence in told if sentence))[:SENTENCES]
    code, hint = _fixed(package_pool, infos, parent) or _verdict(package_pool, infos)
    texts = ", ".join(f"'{request.text}'" for request in requests) or "the requested packages"
    beyond = f" on top of the parent image '{parent.name}'" if code == "parent-fixed" and parent else ""
    message = f"{texts} cannot be installed{beyond}" + "".join(f"\n    {sentence}" for sentence in sentences)
    more = [f"{request.place} ('{request.text}')" for request in requests[1:]]
    if more:
        message += f"\n    also requested at {', '.join(more)}"
    return Problem(code, message, requests[0].place if requests else None, hint)


def _requests(problem: solv.Problem, asked: Sequence[RequestJob]) -> list[Request]:
    """Return the requests that are part of a problem: those that libsolv offers to drop."""
    # Elements have the job's index in the list; their Job() is empty in the wheel (0.7.39).
    offered = {
        element.jobidx
        for solution in problem.solutions()
        for element in solution.elements()
        if element.type == solv.Solver.SOLVER_SOLUTION_JOB
    }
    found = [one.request for number, one in enumerate(asked) if number in offered]
    return list(dict.fromkeys(found))


def _rank(info: solv.Ruleinfo) -> int:
    """Return the sort rank of a rule: causes before consequences."""
    return {
        solv.Solver.SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP: 0,
        solv.Solver.SOLVER_RULE_PKG_NOT_INSTALLABLE: 0,
        solv.Solver.SOLVER_RULE_PKG_CONFLICTS: 0,
        solv.Solver.SOLVER_RULE_PKG_SAME_NAME: 0,
        solv.Solver.SOLVER_RULE_PKG_OBSOLETES: 0,
        solv.Solver.SOLVER_RULE_PKG_REQUIRES: 1,
    }.get(info.type, 2)


def _sentence(package_pool: PackagePool, info: solv.Ruleinfo) -> str:
    rule = solv.Solver
    what = info.dep.str() if info.dep else ""
    who = str(package_pool.nevra(info.solvable.id)) if info.solvable else ""
    other = str(package_pool.nevra(info.othersolvable.id)) if info.othersolvable else ""
    match info.type:
        case rule.SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP:
            return f"{who} requires {what}, which nothing provides"
        case rule.SOLVER_RULE_PKG_REQUIRES:
            return f"{who} requires {what}"
        case rule.SOLVER_RULE_PKG_CONFLICTS:
            return f"{who} conflicts with {what}, which is {other}"
        case rule.SOLVER_RULE_PKG_SELF_CONFLICT:
            return f"{who} conflicts with {what}, which it provides itself"
        case rule.SOLVER_RULE_PKG_OBSOLETES | rule.SOLVER_RULE_PKG_IMPLICIT_OBSOLETES:
            return f"{who} obsoletes {what}, which is {other}"
        case rule.SOLVER_RULE_PKG_SAME_NAME:
            return f"{who} and {other} cannot both be installed"
        case rule.SOLVER_RULE_PKG_NOT_INSTALLABLE:
            hidden = package_pool.hidden(info.solvable.id) if info.solvable else None
            return (
                f"{who} is {hidden}"
                if hidden
                else f"{who} cannot be installed here (excluded, or for another architecture)"
            )
        case rule.SOLVER_RULE_BEST:
            return f"the best candidate, {who}, cannot be installed" if who else ""
        case rule.SOLVER_RULE_JOB_NOTHING_PROVIDES_DEP | rule.SOLVER_RULE_JOB_UNKNOWN_PACKAGE:
            return f"nothing provides {what}" if what else "a requested package does not exist"
    return ""


def _fixed(package_pool: PackagePool, infos: Sequence[solv.Ruleinfo], parent: Recipe | None) -> tuple[str, str] | None:
    """Return code and way out of a conflict with the parent's packages; else None.

    It is one where one of the parent's packages would have to be changed or removed.
    """
    if parent is None:
        return None
    replacing: dict[str, None] = {}
    against: dict[str, None] = {}
    for info in infos:
        pair = [one.id for one in (info.solvable, info.othersolvable) if one]
        if info.type not in _EXCLUDING or len(pair) != 2 or package_pool.installed.isdisjoint(pair):
            continue
        here, new = pair if pair[0] in package_pool.installed else reversed(pair)
        if new in package_pool.installed:
            continue
        if package_pool.nevra(here).name == package_pool.nevra(new).name:
            nevra = package_pool.nevra(new)
            replacing[f"'{nevra.name} >= {nevra.evr}'" if _newer(package_pool, new, here) else f"'{nevra}'"] = None
        else:
            against[str(package_pool.nevra(here))] = None
    if not replacing and not against:
        return None
    how = f"`relbuild lock {parent.path.name} --upgrade`, or add it under 'layers:' in {parent.path.name}"
    if replacing:
        return "parent-fixed", f"the parent's packages are fixed: rebuild it with {', '.join(replacing)} ({how})"
    return "parent-fixed", (
        f"the parent's packages are fixed: rebuild '{parent.name}' without {', '.join(against)}, or request less here"
    )


def _newer(package_pool: PackagePool, new: int, old: int) -> bool:
    first, second = package_pool.pool.id2solvable(new), package_pool.pool.id2solvable(old)
    return bool(first.evrcmp(second) > 0)


def _verdict(package_pool: PackagePool, infos: Sequence[solv.Ruleinfo]) -> tuple[str, str]:
    """Return the code and the hint."""
    rule = solv.Solver
    of_type = {info.type: info for info in reversed(infos)}
    if rule.SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP in of_type:
        what = of_type[rule.SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP].dep.str()
        return (
            "requirement-missing",
            f"add the repository that provides it, or, if the image works without it: assume-installed: ['{what}']",
        )
    if any(
        one in of_type
        for one in (
            rule.SOLVER_RULE_PKG_CONFLICTS,
            rule.SOLVER_RULE_PKG_SAME_NAME,
            rule.SOLVER_RULE_PKG_OBSOLETES,
            rule.SOLVER_RULE_PKG_IMPLICIT_OBSOLETES,
            rule.SOLVER_RULE_PKG_SELF_CONFLICT,
        )
    ):
        return "packages-conflict", "request only one of them, or build two images"
    hidden = [why for info in infos if info.solvable and (why := package_pool.hidden(info.solvable.id))]
    if hidden:
        return "resolution-impossible", hidden[0].hint
    if rule.SOLVER_RULE_PKG_NOT_INSTALLABLE in of_type:
        return "resolution-impossible", "change 'exclude', or the pin that excludes it"
    return "resolution-impossible", "request fewer packages, or other versions"


def _close_matches(word: str, names: Sequence[str], count: int, cutoff: float) -> list[str]:
    """Return the names most like `word`: those that differ in capitals alone, else others."""
    import difflib  # Most resolutions have no problem.

    same = [name for name in names if name.lower() == word.lower()]
    return same[:count] or difflib.get_close_matches(word, names, count, cutoff)
