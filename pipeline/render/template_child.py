"""Entry of the limited child process that parses and renders a recipe's templates.

It asks its parent for their texts.
"""

from __future__ import annotations

from pipeline.errors import Problem, RecipeError
from pipeline.limited import AskParent
from pipeline.render.bounded_environment import BoundedEnvironment
from pipeline.render.small_templates import evaluate_in_process
from pipeline.render.step_limit import generate_bounded
from pipeline.render.template_errors import template_errors_explained
from pipeline.render.template_files import TemplateRefused, TemplateText
from pipeline.render.template_loaders import TemplateLoader


class _ParentLoader(TemplateLoader):
    def __init__(self, ask: AskParent) -> None:
        self.loaded: dict[str, TemplateText] = {}
        self._ask = ask

    def text(self, name: str) -> TemplateText | None:
        told = self._ask({"text": name})
        if isinstance(told, dict):
            raise TemplateRefused(Problem(told["code"], told["message"], hint=told["hint"]))
        return TemplateText(*told) if isinstance(told, list) else None

    def hint(self, name: str) -> str:
        return str(self._ask({"hint": name}))


def serve(request: object, _: bytes, ask: AskParent) -> object:
    """Execute a request: return the rendered text, or its problems, as JSON values."""
    assert isinstance(request, dict)
    try:
        return {"text": _text(request, ask)}
    except RecipeError as error:
        return {"problems": [[one.code, one.message, one.place, one.hint] for one in error.problems]}


def _text(request: dict[str, object], ask: AskParent) -> str:
    place = str(request["place"])
    values = request.get("values")
    seen = values if isinstance(values, dict) else {}
    if "evaluate" in request:
        return evaluate_in_process(str(request["evaluate"]), seen, place=place)
    if "check_text" in request:
        with template_errors_explained(None, place, {}):
            BoundedEnvironment(None).parse(str(request["check_text"]))
        return ""
    loader = _ParentLoader(ask)
    environment = BoundedEnvironment(loader)
    with template_errors_explained(loader, place, seen):
        if "check" in request:
            name = str(request["check"])
            source, filename, _ = loader.get_source(environment, name)
            environment.parse(source, name, filename)
            return ""
        template = environment.get_template(str(request["render"]))
        return generate_bounded(lambda: template.generate(dict(seen)), loader)
