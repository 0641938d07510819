"""An image's configuration: what the recipe says of it, and what it has from the image that it is built from."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace

from pipeline.model.image import ImageConfig
from pipeline.model.recipe import Recipe
from pipeline.model.rpm_database import labelled

BASE_DIGEST = "org.opencontainers.image.base.digest"
"""The annotation of a manifest that names its parent's (image-spec, annotations.md). It is no label: a config is the
same however layers are compressed, and a manifest is not."""

_WHOLE = ("entrypoint", "command", "user", "working_directory", "exposed_ports", "volumes", "stop_signal")

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
"""RPM's names of architectures → OCI's (Go's GOARCH)."""


def image_config(
    recipe: Recipe, version: str, said: Callable[[str], str], *, arch: str, created: int, rpm_database: str
) -> ImageConfig:
    """The image configuration that `recipe` describes.

    `said` evaluates its texts, `arch` is rpm's name, `created` is seconds since the epoch, `rpm_database` the folder
    where the platform has rpm's database.
    """
    plan = recipe.image
    labels = {
        "org.opencontainers.image.title": recipe.name,
        "org.opencontainers.image.version": version,
        **{key: said(value) for key, value in plan.labels},
    }
    return ImageConfig(
        architecture=_ARCHITECTURES.get(arch, arch),
        created=created,
        entrypoint=tuple(map(said, plan.entrypoint)),
        command=tuple(map(said, plan.command)),
        user=plan.user,
        working_directory=plan.working_directory,
        environment=tuple(f"{key}={said(value)}" for key, value in plan.environment),
        exposed_ports=plan.exposed_ports,
        volumes=plan.volumes,
        stop_signal=plan.stop_signal,
        labels=tuple(sorted(labelled(labels, rpm_database).items())),
    )


def inherited(config: ImageConfig, given: Set[str], below: ImageConfig) -> ImageConfig:
    """`config` with what it leaves to `below`, its parent's; `given` are the keys under `image` that the recipe has.

    Environment and labels are merged, the child's winning. Every other key is
    the child's where it is given, else the parent's; a command belongs to its entrypoint, so that of the parent goes
    when the child gives an entrypoint.
    """
    left = {key: getattr(below, key) for key in _WHOLE if key not in given}
    if "entrypoint" in given:
        left.pop("command", None)
    environment = {line.partition("=")[0]: line for line in (*below.environment, *config.environment)}
    labels = {**dict(below.labels), **dict(config.labels)}
    return replace(config, **left, environment=tuple(environment.values()), labels=tuple(sorted(labels.items())))
