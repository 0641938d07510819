"""Parsing and rendering of templates in the child with limits.

It asks its parent for their texts.
"""

from __future__ import annotations

from pipeline.errors import Problem, RecipeError
from pipeline.limited import Ask
from pipeline.render.bounded import BoundedEnvironment
from pipeline.render.explaining import explained
from pipeline.render.loading import Loader, Refused, Text
from pipeline.render.steps import generate
from pipeline.render.templates import evaluate_here


class _Asking(Loader):
    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask

    def text(self, name: str) -> Text | None:
        told = self._ask({"text": name})
        if isinstance(told, dict):
            raise Refused(Problem(told["code"], told["message"], hint=told["hint"]))
        return Text(*told) if isinstance(told, list) else None

    def hint(self, name: str) -> str:
        return str(self._ask({"hint": name}))


def serve(request: object, _: bytes, ask: Ask) -> object:
    """The text that a request comes to, or its problems."""
    assert isinstance(request, dict)
    try:
        return {"text": _text(request, ask)}
    except RecipeError as error:
        return {"problems": [[one.code, one.message, one.place, one.hint] for one in error.problems]}


def _text(request: dict[str, object], ask: Ask) -> str:
    place = str(request["place"])
    values = request.get("values")
    seen = values if isinstance(values, dict) else {}
    if "evaluate" in request:
        return evaluate_here(str(request["evaluate"]), seen, place=place)
    if "check_text" in request:
        with explained(None, place, {}):
            BoundedEnvironment(None).parse(str(request["check_text"]))
        return ""
    loader = _Asking(ask)
    environment = BoundedEnvironment(loader)
    with explained(loader, place, seen):
        if "check" in request:
            name = str(request["check"])
            source, filename, _ = loader.get_source(environment, name)
            environment.parse(source, name, filename)
            return ""
        template = environment.get_template(str(request["render"]))
        return generate(lambda: template.generate(dict(seen)), loader)
