"""Compute the named digests of an image's and its tests' inputs, and compare them.

By comparing them a night finds which inputs changed since an image was built and tested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path

from pipeline.beneath import GivenFolder
from pipeline.compression import Compression, layer_versions
from pipeline.digest import Digest, canonical_json, digest_file
from pipeline.errors import EnvironmentLacking
from pipeline.launch import plan_to_test
from pipeline.model.configuration import oci_architecture
from pipeline.model.platform import Platform
from pipeline.model.recipe import FileKind, Recipe
from pipeline.model.rpm_database import RpmDatabase
from pipeline.nightly.formats import IMAGE_FORMATS, TEST_FORMATS
from pipeline.nightly.inputs_record import InputDigests
from pipeline.render import TemplateFiles
from pipeline.resolve import library_versions
from pipeline.sandbox import emulator_label
from pipeline.smoke import plan_digest

INPUT_TEXTS = {
    "recipe": "the recipe",
    "files": "a copied file",
    "templates": "a template",
    "repositories": "the definition of the repositories",
    "keys": "the keys of the repositories",
    "database": "the folder or format of the RPM database",
    "offer": "the repositories' content",
    "parent": "the parent image",
    "formats": "relbuild or a library that makes layers",
    "compression": "the compression of layers",
    "key": "the signing key",
    "checks": "the checks",
    "older": "the older image of the upgrade test",
    "runtime": "the runtime of the tests",
    "emulator": "the emulator of the tests",
}
"""Names of the inputs in messages."""

TEST_INPUTS = frozenset({"checks", "older", "runtime", "emulator"})
"""Inputs of an image's tests. All others are inputs of the image."""

REPOSITORIES_INPUT = "offer"
"""The input that may differ without effect: the repositories changed, but not the packages of this image."""

KEY_INPUT = "key"
"""The input that is the fingerprint of the signing key."""

_LOOKED_FOR = "looked for"
"""Part of the digest of templates. Not to be changed: each image with templates would be built again."""

_LEFT_OUT = frozenset({"place", "sources", "template_folders", "parent", "smoke", "platform_entries"})
"""Fields of a recipe that no byte of the image depends on, or that are inputs of their own."""


def image_inputs(recipe: Recipe, compression: Compression, key: str) -> dict[str, str]:
    """Return the inputs of the image from `recipe` and relbuild, by name.

    Templates and packages are not among them. `key`: the fingerprint of the signing key.
    """
    formats = [dict(IMAGE_FORMATS), layer_versions(), library_versions(), importlib.metadata.version("Jinja2")]
    return {
        "recipe": _digest(_form(recipe)),
        "files": _digest([_content(path) for path in _copied(recipe)]),
        "formats": _digest(_form(formats)),
        "compression": compression.value,
        KEY_INPUT: key,
    }


def platform_inputs(platform: Platform) -> dict[str, str]:
    """Return the inputs of the image from its platform that are none of the resolution.

    What is usual is left out, so that a record from before there was anything else is still the same.
    """
    database = platform.rpm_database
    return {} if database == RpmDatabase() else {"database": " ".join(database.inputs)}


def test_inputs(recipe: Recipe, runtime: str, *, full: bool) -> dict[str, str]:
    """Return the inputs of the tests of `recipe`'s image."""
    older = recipe.path.parent / recipe.smoke.upgrade_from / "index.json" if recipe.smoke.upgrade_from else None
    return {
        "checks": f"{_digest(dict(TEST_FORMATS))} {plan_digest(plan_to_test(recipe.smoke, full=full))}",
        "runtime": runtime,
        "older": _content(older) if older else "none",
    }


def emulator_inputs(architectures: Iterable[str]) -> dict[str, str]:
    """Return the emulators of an image's tests on this machine, by rpm's names of architectures.

    Without one there is no such input, so that a record from before there was one is still the same; a machine that can
    run an architecture in no way leaves its tests to workers that can.
    """
    labels = {}
    for arch in sorted(architectures):
        with contextlib.suppress(EnvironmentLacking):
            labels[arch] = emulator_label(oci_architecture(arch))
    text = ", ".join(f"{arch}: {label}" for arch, label in labels.items() if label)
    return {"emulator": text} if text else {}


def looked_for_templates(members: Iterable[Iterable[tuple[str, str]]]) -> tuple[tuple[str, ...], str]:
    """Return the names of templates that images looked for, sorted, and their digest.

    Each member's are (name, digest of its content or `missing`), as they were when its image was made. What two members
    read differently has the digest of neither, so the next night builds the image again.
    """
    found: dict[str, set[str]] = {}
    for member in members:
        for name, content in member:
            found.setdefault(name, set()).add(content)
    return tuple(sorted(found)), _contents_digest({name: " ".join(sorted(each)) for name, each in found.items()})


def templates_digest(recipe: Recipe, names: Iterable[str]) -> str:
    """Return the digest of the present content of templates, by the names that images look for.

    What is not there counts, too: a template that another one includes if there is one may come to be.
    """
    files = TemplateFiles(recipe.template_folders, GivenFolder(recipe.path.parent))
    for name in names:
        files.look_for(name)
    return _contents_digest(files.contents())


def _contents_digest(contents: Mapping[str, str]) -> str:
    """Return a digest that no record of an earlier release has.

    Those name only files that were found. Images without templates keep theirs, as nothing was left out of it.
    """
    return _digest([_LOOKED_FOR, sorted(contents.items())] if contents else [])


def changed_inputs(before: InputDigests, now: InputDigests) -> tuple[str, ...]:
    """Return the names of inputs that differ, sorted."""
    return tuple(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))


def in_words(names: Iterable[str]) -> str:
    """Return the names of changed inputs as part of a sentence: `the recipe and a template`."""
    words = [INPUT_TEXTS.get(name, name) for name in names]
    return " and ".join(", ".join(words).rsplit(", ", 1))


def _copied(recipe: Recipe) -> list[Path]:
    # Archives are not read: their checksums are in the recipe.
    return [recipe.path.parent / plan.origin for plan in recipe.files if plan.kind is FileKind.SOURCE]


def _content(path: Path) -> str:
    try:
        return str(digest_file(path))
    except OSError:
        return "missing"


def _digest(value: object) -> str:
    return str(Digest.of(canonical_json(value)))


def _form(value: object) -> object:
    """Return a value as JSON values, without the fields that have their defaults.

    What says nothing (`_LEFT_OUT`) is left out too. So a key that relbuild learns changes no recipe that lacks it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: field.default for field in dataclasses.fields(value) if field.name not in _LEFT_OUT}
        given = {name: getattr(value, name) for name in fields}
        return {name: _form(inner) for name, inner in given.items() if inner != fields[name]}
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Enum):
        return _form(value.value)
    if isinstance(value, Mapping):
        return {str(key): _form(inner) for key, inner in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(str(inner) for inner in value)
    if isinstance(value, list | tuple):
        return [_form(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | str) else repr(value)
