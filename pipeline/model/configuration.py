"""Computation of an image config from a recipe, and its completion from the parent's."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace
from typing import Any, assert_never

from pipeline.model.image import ImageConfig
from pipeline.model.image_keys import IMAGE_KEYS, ImageKey, KeyForm
from pipeline.model.recipe import Recipe
from pipeline.model.rpm_database import RpmDatabase, labelled

BASE_DIGEST = "org.opencontainers.image.base.digest"
"""The annotation of a manifest that names its parent's (image-spec, annotations.md). It is no label: a config is the
same however layers are compressed, and a manifest is not."""

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
"""RPM's names of architectures → OCI's (Go's GOARCH)."""


def oci_architecture(arch: str) -> str:
    """Return OCI's name of one of rpm's architectures."""
    return _ARCHITECTURES.get(arch, arch)


def rpm_arch(architecture: str) -> str:
    """Return rpm's name of one of OCI's architectures."""
    return next((arch for arch, name in _ARCHITECTURES.items() if name == architecture), architecture)


def image_config(
    recipe: Recipe, version: str, said: Callable[[str], str], *, arch: str, created: int, rpm_database: RpmDatabase
) -> ImageConfig:
    """Return the image configuration that `recipe` describes.

    `said` renders its templates, `arch` is rpm's name, `created` is seconds since the epoch, `rpm_database` the
    platform's folder and format of rpm's database.
    """
    plan = recipe.image
    labels = {
        "org.opencontainers.image.title": recipe.name,
        "org.opencontainers.image.version": version,
        **{key: said(value) for key, value in plan.labels},
    }
    settings = {key.name: _evaluated(key, getattr(plan, key.name), said) for key in IMAGE_KEYS}
    settings["labels"] = tuple(sorted(labelled(labels, rpm_database).items()))
    return replace(ImageConfig(architecture=oci_architecture(arch), created=created), **settings)


def _evaluated(key: ImageKey, value: Any, said: Callable[[str], str]) -> Any:  # noqa: ANN401  as the key has it
    """Return the value of a key with its templates evaluated."""
    if not key.templated:
        return value
    match key.form:
        case KeyForm.WORDS:
            return tuple(map(said, value))
        case KeyForm.VARIABLES:
            return tuple(f"{name}={said(text)}" for name, _, text in (line.partition("=") for line in value))
        case KeyForm.LABELS:
            return tuple((name, said(text)) for name, text in value)
        case KeyForm.USER | KeyForm.FOLDER | KeyForm.SIGNAL:
            return said(value) if value else value
        case KeyForm.PORTS | KeyForm.PATHS:
            return tuple(map(said, value))
        case other:
            assert_never(other)


def inherited(config: ImageConfig, given: Set[str], below: ImageConfig) -> ImageConfig:
    """Return `config` completed from `below`, its parent's config.

    `given` are the keys under `image` that the recipe has.

    Environment and labels are merged, the child's winning. Every other key is
    the child's where it is given, else the parent's; a command belongs to its entrypoint, so that of the parent goes
    when the child gives an entrypoint.
    """
    changes: dict[str, Any] = {}
    for key in IMAGE_KEYS:
        own, parents = getattr(config, key.name), getattr(below, key.name)
        match key.form:
            case KeyForm.VARIABLES:
                changes[key.name] = tuple({line.partition("=")[0]: line for line in (*parents, *own)}.values())
            case KeyForm.LABELS:
                changes[key.name] = tuple(sorted({**dict(parents), **dict(own)}.items()))
            case KeyForm.WORDS | KeyForm.USER | KeyForm.FOLDER | KeyForm.PORTS | KeyForm.PATHS | KeyForm.SIGNAL:
                if key.name not in given and key.follows not in given:
                    changes[key.name] = parents
            case other:
                assert_never(other)
    return replace(config, **changes)
