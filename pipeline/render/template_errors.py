"""Conversion of Jinja's errors to RecipeErrors, with file and line where known."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from jinja2 import TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import SecurityError

from pipeline.errors import EnvironmentLacking, RecipeError
from pipeline.render.bounded_environment import FILTERS, NameMissing, RenderBoundPassed
from pipeline.render.template_files import TemplateRefused
from pipeline.render.template_loaders import TemplateLoader

_SUGGESTION_CANDIDATES = 1000
"""Names that are compared with an undefined one for a suggestion, which takes time for each."""
_NAME_SHOWN = 200
_TEXT_SHOWN = 2000
"""Characters of a name and of an exception's text that are shown."""
_BLOCK_END = re.compile(r"'(end\w+)'")
_LITERAL = "put literal text between {% raw %} and {% endraw %}"


@contextmanager
def template_errors_explained(
    loader: TemplateLoader | None, place: str, values: Mapping[str, object]
) -> Iterator[None]:
    """Convert Jinja's errors into a RecipeError.

    Its place is the template's file and line, else `place`.
    """
    try:
        yield
    except (RecipeError, EnvironmentLacking, MemoryError):
        raise
    except TemplateRefused as error:
        problem = error.problem
        raise RecipeError(problem.code, problem.message, place=place, hint=problem.hint) from None
    except TemplateNotFound as error:
        raise _not_found(error, loader, place) from None
    except TemplateSyntaxError as error:
        where = place
        filename = error.filename or error.name  # the lexer gives some errors their file as a name
        if loader is not None and filename in loader.loaded:
            where = f"{loader.loaded[filename].shown}:{error.lineno}"
        raise RecipeError(
            "template-syntax",
            f"invalid template: {error.message}",
            place=where,
            hint=_syntax_hint(str(error.message)),
        ) from None
    except NameMissing as error:
        raise _undefined(error, _where(error, loader, place), values) from None
    except RecursionError as error:
        raise RecipeError(
            "template-runaway", "the template includes or calls itself endlessly", place=_where(error, loader, place)
        ) from None
    except RenderBoundPassed as error:
        raise RecipeError("template-runaway", str(error), place=_where(error, loader, place)) from None
    except SecurityError as error:
        raise RecipeError(
            "template-failed",
            str(error),
            place=_where(error, loader, place),
            hint="templates see plain values only; use filters instead of methods",
        ) from None
    except SyntaxError as error:  # Of Python, from what Jinja made: too many blocks or brackets in one another.
        raise RecipeError(
            "template-syntax", f"the template cannot be compiled: {error.msg}", place=place, hint="reduce the nesting"
        ) from None
    except Exception as error:
        # Any exception that Python raises while a template runs is the template's error.
        message = f"the template fails: {str(error)[:_TEXT_SHOWN] or type(error).__name__}"
        raise RecipeError("template-failed", message, place=_where(error, loader, place)) from None


def _syntax_hint(said: str) -> str:
    if "comment" in said:
        return "'{#' begins a comment; write a shell's ${#name} as {{ '${#' }}name}"
    if "No filter" in said:
        return f"available filters: {', '.join(FILTERS)}"
    if "raw directive" in said:
        return "close it with {% endraw %}"
    ends = _BLOCK_END.findall(said.partition("looking for")[2])
    if ends:
        return f"close the block with {{% {ends[-1]} %}}"
    if said.startswith(("unexpected end of template", "unexpected '}'")):
        return "close the value with '}}', the statement with '%}'; or " + _LITERAL
    return _LITERAL


def _where(error: BaseException, loader: TemplateLoader | None, place: str) -> str:
    """Return the innermost line of template code in the traceback, as file:line."""
    if loader is None:
        return place
    found = place
    step: TracebackType | None = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if name in loader.loaded:
            found = f"{loader.loaded[name].shown}:{step.tb_lineno}"
        step = step.tb_next
    return found


def _not_found(error: TemplateNotFound, loader: TemplateLoader | None, place: str) -> RecipeError:
    name = str(error.name or error)
    hint = loader.hint(name) if loader is not None else "no folder is searched for templates"
    return RecipeError(
        "template-missing", f"template not found: '{name[:200]}'", place=_where(error, loader, place), hint=hint
    )


def _undefined(error: NameMissing, place: str, values: Mapping[str, object]) -> RecipeError:
    name = error.name[:_NAME_SHOWN]
    known: list[str]
    if error.owner is None:
        message = f"'{name}' is undefined"
        known = [*values]
    else:
        owner = error.owner
        known = [str(key) for key in owner] if isinstance(owner, Mapping) else []
        message = f"'{name}' is undefined: the value has no such member"
    near = difflib.get_close_matches(name, known[:_SUGGESTION_CANDIDATES], n=1, cutoff=0.6)
    if near:
        hint = f"did you mean '{near[0]}'?"
    elif known:
        hint = f"defined: {', '.join(sorted(known)[:12])}{' …' if len(known) > 12 else ''}"
    else:
        hint = "add it to the recipe's values, or write a default: {{ name | default('…') }}"
    return RecipeError("template-undefined", message, place=place, hint=hint)
