"""Write a first recipe for a product, valid and commented, for `relbuild new`.

It has the keys that every recipe needs, and others as comments.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.errors import RecipeError, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.recipes.document_loading import load_recipe
from pipeline.recipes.merge import DEFAULT_ARCHITECTURES
from pipeline.store import failing_at

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_BARE = re.compile(r"[A-Za-z][A-Za-z0-9._+-]*")
_WORDS = frozenset({"null", "true", "false"})

_LABEL = "org.opencontainers.image.description"
_WAITS = "trap 'exit 0' TERM; echo waiting; while :; do sleep 3600 & wait $!; done"
_BASE = ("bash", "coreutils", "glibc", "tzdata", "ca-certificates")


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The content of a first recipe.

    `packages` are requests; `parent` is the recipe it is built from, `include` one that it includes ("": none);
    `platform` is named if nothing else gives one ("": something does), `architecture` if it is not the default.
    """

    name: str
    packages: tuple[str, ...]
    parent: str = ""
    include: str = ""
    platform: str = ""
    architecture: str = ""


def write_scaffold(path: Path, start: Scaffold) -> None:
    """Write a first recipe to `path`, whole and valid or not at all.

    An existing file is never changed.

    Raises UsageError `recipe-exists`, `name-malformed`, RecipeError as `load_recipe`.
    """
    if not _NAME.fullmatch(start.name):
        near = re.sub(r"[^a-z0-9]+", "-", start.name.lower()).strip("-")
        raise UsageError(
            "name-malformed",
            f"invalid recipe name: '{start.name[:80]}'",
            hint="use lower-case letters and digits, with single '.', '_' or '-' between them"
            + (f": {near[:80]}" if near else ""),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.yaml")
    try:
        with failing_at(path):
            draft.write_text(scaffold_text(start))
        load_recipe(draft)
        os.link(draft, path)
    except FileExistsError:
        raise UsageError(
            "recipe-exists", f"'{path}' already exists", place=str(path), hint="choose another name, or edit the file"
        ) from None
    except RecipeError as error:
        raise RecipeError.of(
            [replace(one, place=(one.place or "").replace(draft.name, path.name) or None) for one in error.problems]
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def scaffold_text(start: Scaffold) -> str:
    """Return the text of a first recipe."""
    return "".join(f"{line}\n" for line in _lines(start))


def _lines(start: Scaffold) -> Iterator[str]:
    named = [package for package in start.packages if _PACKAGE_NAME.fullmatch(package)]
    alone = not start.parent and not start.include
    yield f"# {start.name}: say here what it is, what it serves on which port, and what is kept in which volume."
    yield "# `relbuild help recipe` describes every key; `relbuild schema` prints a JSON Schema for editors."
    yield f"name: {_scalar(start.name)}"
    if named:
        yield "# Evaluated after the packages are chosen, so the tags follow the product."
        yield f"""version: "{{{{ packages['{named[0]}'].version }}}}\""""
    else:
        yield 'version: "1"'
    if start.parent:
        yield "# The image that this one adds to; its packages are fixed."
        yield f"from: {_scalar(start.parent)}"
    if start.include:
        yield "# The layers that all products share: stored and downloaded once."
        yield f"include: [{_scalar(start.include)}]"
    if start.platform:
        yield "# One of repositories.yaml: where packages come from, and whose keys are trusted."
        yield f"platform: {_scalar(start.platform)}"
    if start.architecture not in ("", *DEFAULT_ARCHITECTURES):
        yield f"architectures: [{start.architecture}]"
    else:
        yield "# architectures: [x86_64, aarch64]"
    if alone or start.packages:
        yield "# Lowest first. Put what changes rarely into layers of its own."
        yield "layers:"
    else:
        yield "# layers:"
        yield "#   - {name: product, packages: [something]}"
    if alone:
        yield from _layer("base", _BASE)
    if start.packages:
        yield from _layer("product", start.packages)
    yield "# An account whose number is the same in every version, so that volumes stay readable."
    yield "# accounts:"
    yield f"#   users: [{{name: {start.name}, uid: 990, home: /var/lib/{start.name}}}]"
    yield "# Templates are looked for in templates/; `content: text` needs none."
    yield "# files:"
    yield f'#   - {{template: {start.name}.conf.j2, path: /etc/{start.name}.conf, mode: "0644"}}'
    yield f"#   - {{archive: {start.name}-1.0.tar.xz, sha256: …, path: /opt/{start.name}, strip: 1}}"
    yield "# values: {port: 8080}"
    yield "image:"
    if alone:
        yield "  # Waits until it is stopped. Replace it with the product's program."
        yield f"  entrypoint: [/usr/bin/bash, -c, {json.dumps(_WAITS)}]"
    else:
        yield f"  # Inherited from {start.parent or start.include} unless set here. Put the product's program here."
        yield f"  # entrypoint: [/usr/bin/{start.name}]"
    yield f"  # user: {start.name}"
    yield "  # exposed_ports: [8080]"
    yield f"  # volumes: [/var/lib/{start.name}]"
    yield "  labels:"
    yield f"    {_LABEL}: {_scalar(start.name)}"
    yield "# The image is launched under these limits and checked. `relbuild help smoke` has every kind of check;"
    yield f"# `relbuild smoke {start.name} --record` drafts checks from what a running image shows."
    yield "smoke:"
    yield "  limits: {cpus: 1, memory: 256MiB, pids: 100}"
    yield "  # Without `ready` the checks, and the stop, follow right after the start."
    yield "  # ready: {port: 8080, within: 30s}"
    if not start.parent:
        yield "  ready: {log: waiting, within: 10s}"
    yield "  checks:"
    yield f"    - {{name: says what it is, image: {{labels: {{{_LABEL}: {_scalar(start.name)}}}}}}}"
    if named:
        yield f"    - {{name: has its packages, packages: {{present: [{', '.join(_scalar(one) for one in named)}]}}}}"
    yield f"    {'# ' if start.parent else ''}- {{name: stops cleanly, stop: {{within: 20s, exit_code: 0}}}}"


def _layer(name: str, packages: tuple[str, ...]) -> Iterator[str]:
    yield f"  - name: {name}"
    yield f"    packages: [{', '.join(_scalar(package) for package in packages)}]"
    yield "    without: [docs, man, weak-dependencies]"


def _scalar(text: str) -> str:
    """Write a text as a YAML scalar, quoted unless it is surely a plain word."""
    return text if _BARE.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
