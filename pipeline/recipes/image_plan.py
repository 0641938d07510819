"""Plan the settings of a recipe's image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from pipeline.errors import RecipeError
from pipeline.model.image_keys import IMAGE_KEYS, ImageKey, KeyForm
from pipeline.model.published_port import PORT_MOST, PROTOCOLS
from pipeline.model.recipe import ImagePlan
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.schema import ImageDocument, is_given
from pipeline.render import check_template, evaluate_template
from pipeline.yaml_documents import DocumentPath


def plan_image(sources: Sequence[RecipeFile], seen: Mapping[str, object], problems: Problems) -> ImagePlan:
    """Plan the image's settings from all `sources`, of which the upper ones win.

    Ports see the values `seen`. Problems: `port-malformed`, `list-empty`, and those of templates.
    """
    settings: dict[str, Any] = {}
    given: set[str] = set()
    for source in sources:
        image = source.recipe.image
        given |= {
            name for name in ImageDocument.model_fields if is_given(image, name) and getattr(image, name) is not None
        }
        for key in IMAGE_KEYS:
            value, before = getattr(image, key.name), settings.get(key.name, ())
            match key.form:
                case KeyForm.VARIABLES:
                    variables = dict(line.partition("=")[::2] for line in before) | value
                    settings[key.name] = tuple(f"{name}={text}" for name, text in variables.items())
                case KeyForm.LABELS:
                    settings[key.name] = tuple(sorted((dict(before) | value).items()))
                case KeyForm.PORTS:
                    if value is not None:
                        settings[key.name] = _ports(value, key, seen, source, problems)
                case KeyForm.WORDS | KeyForm.PATHS | KeyForm.USER | KeyForm.FOLDER | KeyForm.SIGNAL:
                    if value is not None:
                        settings[key.name] = tuple(value) if isinstance(value, list) else value
                case other:
                    assert_never(other)
        _check_image(image, source, problems)
    return ImagePlan(**settings, given=frozenset(given))


def _check_image(image: ImageDocument, source: RecipeFile, problems: Problems) -> None:
    for key in (key for key in IMAGE_KEYS if key.templated):
        value = getattr(image, key.name)
        texts = value.items() if isinstance(value, dict) else enumerate(value or ())
        for place_in, text in texts:
            check_text(text, source, ("image", key.name, place_in), problems)
    if image.entrypoint == []:
        message = "the entrypoint is empty"
        problems.add(
            "list-empty", message, source.document, ("image", "entrypoint"), "write a program and its arguments"
        )


def _ports(
    written: Sequence[str], key: ImageKey, seen: Mapping[str, object], source: RecipeFile, problems: Problems
) -> tuple[str, ...]:
    ports: dict[str, None] = {}
    for index, text in enumerate(written):
        path: DocumentPath = ("image", key.name, index)
        try:
            rendered = evaluate_template(text, seen, place=place(source.document, path))
        except RecipeError as error:
            problems.take(error)
            continue
        number, slash, protocol = rendered.partition("/")
        if not (number.isascii() and number.isdigit() and len(number) <= 5 and 1 <= int(number) <= PORT_MOST):
            hint = "write a port number from 1 to 65535"
            problems.add("port-malformed", f"'{rendered[:40]}' is not a port", source.document, path, hint)
        elif slash and protocol not in PROTOCOLS:
            message, hint = f"'{protocol[:20]}' is not a protocol", "write tcp, udp or sctp"
            problems.add("port-malformed", message, source.document, path, hint)
        else:
            ports[f"{int(number)}/{protocol or 'tcp'}"] = None
    return tuple(ports)


def check_text(text: str, source: RecipeFile, path: DocumentPath, problems: Problems) -> None:
    """Check the form of a text with templates."""
    try:
        check_template(text, place=place(source.document, path))
    except RecipeError as error:
        problems.take(error)
