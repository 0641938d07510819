"""Convert a recipe's layers, pins, exclusions and modules to requests to the resolver."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pipeline.beneath import PathEscape
from pipeline.digest import Digest
from pipeline.model.recipe import LayerPlan, LocalPackage, Request, Without
from pipeline.recipes.fields import PACKAGE_NAME_FORM
from pipeline.recipes.problems import Problems, place
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.recipes.schema import LayerDocument, LocalPackageDocument
from pipeline.render import is_template
from pipeline.yaml_documents import DocumentPath

LONGEST_REQUEST = 1024
"""Characters of one request: a long rich dependency has some hundred."""

GLOB_FORM = (
    re.compile(r"[A-Za-z0-9_.+*?\[\]!:~^-]+"),
    "a package's name or pattern",
    "write a name, or a pattern with *",
)
CAPABILITY_FORM = (re.compile(r"[^\s-].*"), "a requirement", "write what packages require, such as systemd")
MODULE_FORM = (
    re.compile(r"[A-Za-z0-9_.+-]+:[A-Za-z0-9_.+-]+"),
    "a module stream",
    "write NAME:STREAM, such as nodejs:20",
)
LANGUAGE_FORM = (
    re.compile(r"[a-z]{2,3}([_@][A-Za-z@.0-9-]+)?|C"),
    "a locale",
    "write a language such as en, or a locale such as pt_BR",
)
TextForm = tuple[re.Pattern[str], str, str]
"""Pattern of a list's items, noun for one, and hint."""

PACKAGE_NAME = re.compile(PACKAGE_NAME_FORM)
_GROUP = re.compile(
    r"@\^?[^/@\s][^/@]*(/(mandatory|default|optional|conditional)(,(mandatory|default|optional|conditional))*)?"
)
_VERSION = re.compile(r"(\d+:)?[A-Za-z0-9_.+~^]+(-[A-Za-z0-9_.+~^]+)?")


PlatformNames = Mapping[str, tuple[str, ...]]
"""Names of packages as the platform has them, by the names in the recipe."""

NO_NAMES: PlatformNames = {}


def requested_name(request: str) -> str:
    """Return the name at the start of a request: of `openssl >= 3` it is `openssl`."""
    return request.partition(" ")[0]


def platform_requests(request: str, names: PlatformNames) -> tuple[str, ...]:
    """Return a request with the platform's names.

    There is one for each package that it is there, none if it is none.
    """
    name = requested_name(request)
    rest = request[len(name) :]
    return tuple(one + rest for one in names[name]) if name in names else (request,)


def plan_layers(
    sources: Sequence[RecipeFile],
    weak_dependencies: bool,
    top: Path,
    problems: Problems,
    *,
    alone: bool = True,
    names: PlatformNames = NO_NAMES,
) -> tuple[LayerPlan, ...]:
    """Plan the layers of all `sources`, the lowest first.

    Local packages are relative to `top`. `alone`: there is no parent image, so there must be a layer. Requests are
    replaced by the platform's `names`.

    Problems: `layer-duplicate`, `layer-name-of-auto`, `request-duplicate`, `request-template`, `request-malformed`,
    `weak-dependencies-contradiction`, `key-missing`.
    """
    layers: list[LayerPlan] = []
    first: dict[str, tuple[RecipeFile, DocumentPath]] = {}
    for source in sources:
        for index, layer in enumerate(source.recipe.layers):
            path: DocumentPath = ("layers", index)
            if layer.name in first:
                before, at = first[layer.name]
                problems.add(
                    "layer-duplicate",
                    f"duplicate layer '{layer.name}', first defined at {before.document.place(at)}",
                    source.document,
                    (*path, "name"),
                    "give this layer its own name; a shared layer is identical in all images, so "
                    "nothing can be added to it",
                )
            first.setdefault(layer.name, (source, path))
            if weak_dependencies and Without.WEAK_DEPENDENCIES in layer.without:
                problems.add(
                    "weak-dependencies-contradiction",
                    f"the recipe enables weak dependencies, but the layer '{layer.name}' excludes them",
                    source.document,
                    (*path, "without", layer.without.index(Without.WEAK_DEPENDENCIES)),
                    "they are one setting for the whole recipe: remove one of the two",
                )
            layers.append(_layer(layer, source, path, top, problems, own=source is sources[-1], names=names))
    _refuse_names(layers, first, problems)
    if not layers and alone:
        own = sources[-1].document
        problems.add(
            "key-missing", "the recipe has no layers", own, (), "add 'layers:', include a recipe, or 'from:' one"
        )
    return tuple(layers)


def _refuse_names(
    layers: Sequence[LayerPlan], places: Mapping[str, tuple[RecipeFile, DocumentPath]], problems: Problems
) -> None:
    """Refuse names of layers that `auto` would make of another layer."""
    groups = {layer.name for layer in layers if layer.at_most is not None}
    for layer in layers:
        name, _, number = layer.name.rpartition("-")
        if name in groups and number.isdigit():
            source, path = places[layer.name]
            problems.add(
                "layer-name-of-auto",
                f"the layer name '{layer.name}' may clash with a layer that 'auto' creates from '{name}'",
                source.document,
                (*path, "name"),
                "give this layer another name",
            )


def _layer(
    layer: LayerDocument,
    source: RecipeFile,
    path: DocumentPath,
    top: Path,
    problems: Problems,
    *,
    own: bool,
    names: PlatformNames,
) -> LayerPlan:
    requests: list[Request] = []
    local: list[LocalPackage] = []
    seen: set[str] = set()
    for index, item in enumerate(layer.packages):
        inner: DocumentPath = (*path, "packages", index)
        text = item.path if isinstance(item, LocalPackageDocument) else item
        if text in seen:
            problems.add(
                "request-duplicate",
                f"duplicate request '{text}' in this layer",
                source.document,
                inner,
                "remove one of them",
            )
        seen.add(text)
        if isinstance(item, LocalPackageDocument):
            package = _local(item, source, inner, top, problems)
            local += [package] if package else []
        elif _good_request(item, source, inner, problems):
            requests += [Request(one, place(source.document, inner)) for one in platform_requests(item, names)]
    return LayerPlan(
        name=layer.name,
        requests=tuple(requests),
        local=tuple(local),
        docs=Without.DOCS not in layer.without,
        man=Without.MAN not in layer.without,
        at_most=layer.auto.at_most if layer.auto else None,
        brought_by=source.path if layer.auto and not own else None,
    )


def _local(
    item: LocalPackageDocument, source: RecipeFile, path: DocumentPath, top: Path, problems: Problems
) -> LocalPackage | None:
    if PurePosixPath(item.path).is_absolute() or not item.path.endswith(".rpm"):
        problems.add(
            "path-malformed",
            f"'{item.path}' is not a relative path to an .rpm file",
            source.document,
            (*path, "path"),
            "write the path of a .rpm file, relative to the recipe",
        )
        return None
    try:
        source.given.check(source.folder / item.path)
    except PathEscape as error:
        problems.add("path-escapes", str(error.strerror), source.document, (*path, "path"), error.way_out)
        return None
    relative = Path(os.path.relpath(source.folder / item.path, top))
    return LocalPackage(relative, Digest(item.sha256), place(source.document, path))


def _good_request(text: str, source: RecipeFile, path: DocumentPath, problems: Problems) -> bool:
    if is_template(text):
        problems.add(
            "request-template",
            "a request cannot contain a template, because templates may depend on resolved packages",
            source.document,
            path,
            "write the request out",
        )
    elif text.startswith("@") and not _GROUP.fullmatch(text):
        problems.add(
            "request-malformed",
            f"'{text[:60]}' is not a group of packages",
            source.document,
            path,
            "write @ID, @^ENVIRONMENT, or @ID/mandatory,default,optional,conditional",
        )
    elif text.startswith("-") or len(text) > LONGEST_REQUEST or text != text.strip():
        problems.add(
            "request-malformed",
            f"'{text[:60]}' is not a package request",
            source.document,
            path,
            "write a name, a provide, a file path, or 'name >= version'; to leave a package out, use 'exclude'",
        )
    else:
        return True
    return False


def plan_pins(
    sources: Sequence[RecipeFile], problems: Problems, names: PlatformNames = NO_NAMES
) -> tuple[tuple[str, str], ...]:
    """Package → version that must hold; the upper recipe wins.

    Packages have the platform's names. Problem: `pin-malformed`.
    """
    pins: dict[str, str] = {}
    for source in sources:
        for name, version in source.recipe.pins.items():
            if not PACKAGE_NAME.fullmatch(name) or not _VERSION.fullmatch(version):
                problems.add(
                    "pin-malformed",
                    f"'{name}: {version}' is not a valid pin",
                    source.document,
                    ("pins", name),
                    'write NAME: "[EPOCH:]VERSION[-RELEASE]"',
                )
            for one in (name,) if source.entry else names.get(name, (name,)):
                pins[one] = version
    return tuple(sorted(pins.items()))


def plan_names(
    sources: Sequence[RecipeFile], key: str, form: TextForm, problems: Problems, names: PlatformNames = NO_NAMES
) -> tuple[str, ...]:
    """Return the items of the list `key` of all `sources`, each once.

    They are replaced by the platform's `names`. Problems: `request-template`, `KEY-malformed`."""
    expression, what, hint = form
    found: dict[str, None] = {}
    for source in sources:
        items: Sequence[str] = getattr(source.recipe, key.replace("-", "_")) or ()
        for index, item in enumerate(items):
            if is_template(item):
                message = f"'{key}' cannot contain a template"
                problems.add("request-template", message, source.document, (key, index), "write it out")
            elif not expression.fullmatch(item):
                problems.add(f"{key}-malformed", f"'{item[:60]}' is not {what}", source.document, (key, index), hint)
            found |= dict.fromkeys((item,) if source.entry else names.get(item, (item,)))
    return tuple(found)
