"""Table of the recipe keys under `image`, each with its form and its OCI config member.

A key added here is added to recipes, images, inheritance, checks and output.

A key is a field of `ImageSettings` whose metadata says all of it (`ImageKey`). Made from the table are the recipe's
schema, the merging of includes, what an image has from its parent, the config's bytes and their reading (image-spec,
config.md), the check `image`, and the lines of `relbuild inspect`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pipeline.lazy_dataclasses import dataclass


class KeyForm(StrEnum):
    """Forms of a value in a recipe."""

    WORDS = "words"
    USER = "user"
    FOLDER = "folder"
    VARIABLES = "variables"
    PORTS = "ports"
    PATHS = "paths"
    SIGNAL = "signal"
    LABELS = "labels"


class ConfigForm(StrEnum):
    """Forms of a value in a config.

    A string, an array of strings, an object of empty objects, an object of strings.
    """

    STRING = "string"
    ARRAY = "array"
    SET = "set"
    OBJECT = "object"


NAMED = frozenset({KeyForm.VARIABLES, KeyForm.LABELS})
"""Forms that are values by name: merged where others are replaced, and a check asks for some of them."""

UNORDERED = frozenset({KeyForm.PORTS, KeyForm.PATHS})
"""Forms whose order means nothing."""


@dataclass(frozen=True, slots=True)
class ImageKey:
    """A key under `image`.

    `name` is that of its field, `config` the one in a config and `stored` its form there. `meaning` and `example` are
    of the recipe's reference, `checked` and `check_example` of the check `image`. `templated`: it may hold templates
    that use packages. `follows`: the key to which it belongs, so that a child that gives that one drops the parent's.
    `default` is what holds where an image has none. `shown` is its name in output ("": it is not shown), and `unset`
    what is written there instead of nothing. `one` is the noun for one of several values.
    """

    form: KeyForm
    config: str
    stored: ConfigForm
    meaning: str
    checked: str
    shown: str
    example: object = None
    check_example: object = None
    templated: bool = False
    follows: str = ""
    default: str = ""
    unset: str = ""
    one: str = ""
    name: str = ""


def _declared(key: ImageKey) -> Any:  # noqa: ANN401  as dataclasses.field, which it is
    default: object = "" if key.stored is ConfigForm.STRING else ()
    return dataclasses.field(default=default, metadata={"key": key})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """Settings of an image that a recipe can give."""

    entrypoint: tuple[str, ...] = _declared(
        ImageKey(
            KeyForm.WORDS,
            "Entrypoint",
            ConfigForm.ARRAY,
            meaning="the program that is started, with its arguments",
            example=["/usr/libexec/mysql-start"],
            checked="the whole entrypoint",
            templated=True,
            shown="entrypoint",
        )
    )
    command: tuple[str, ...] = _declared(
        ImageKey(
            KeyForm.WORDS,
            "Cmd",
            ConfigForm.ARRAY,
            meaning="arguments that a user may replace",
            example=["--verbose"],
            checked="the whole command",
            templated=True,
            follows="entrypoint",
            shown="command",
        )
    )
    user: str = _declared(
        ImageKey(
            KeyForm.USER,
            "User",
            ConfigForm.STRING,
            meaning="who it runs as",
            example="mysql",
            checked="who it runs as",
            check_example="nginx",
            shown="user",
            unset="root",
        )
    )
    working_directory: str = _declared(
        ImageKey(
            KeyForm.FOLDER,
            "WorkingDir",
            ConfigForm.STRING,
            meaning="where it starts",
            example="/srv",
            checked="where it starts",
            shown="",
        )
    )
    environment: tuple[str, ...] = _declared(
        ImageKey(
            KeyForm.VARIABLES,
            "Env",
            ConfigForm.ARRAY,
            meaning="environment variables",
            example={"LANG": "C.UTF-8"},
            checked="these variables, among others",
            shown="",
            check_example={"LANG": "C.UTF-8"},
            templated=True,
            one="environment variable",
        )
    )
    exposed_ports: tuple[str, ...] = _declared(
        ImageKey(
            KeyForm.PORTS,
            "ExposedPorts",
            ConfigForm.SET,
            meaning="ports that it listens on",
            example=[3306, "53/udp"],
            checked="all exposed ports",
            shown="ports",
            unset="none",
        )
    )
    volumes: tuple[str, ...] = _declared(
        ImageKey(
            KeyForm.PATHS,
            "Volumes",
            ConfigForm.SET,
            meaning="directories that outlive a container",
            example=["/var/lib/mysql"],
            checked="all volumes",
            shown="volumes",
            unset="none",
        )
    )
    stop_signal: str = _declared(
        ImageKey(
            KeyForm.SIGNAL,
            "StopSignal",
            ConfigForm.STRING,
            meaning="the signal that stops it cleanly",
            example="SIGTERM",
            checked="the stop signal",
            default="SIGTERM",
            shown="stop signal",
            unset="SIGTERM",
        )
    )
    labels: tuple[tuple[str, str], ...] = _declared(
        ImageKey(
            KeyForm.LABELS,
            "Labels",
            ConfigForm.OBJECT,
            meaning="labels of the image",
            checked="these labels, among others",
            check_example={"org.opencontainers.image.title": "nginx"},
            templated=True,
            shown="label",
            one="label",
        )
    )


def _keys() -> Iterator[ImageKey]:
    for field in dataclasses.fields(ImageSettings):
        key = field.metadata["key"]
        assert isinstance(key, ImageKey)
        yield dataclasses.replace(key, name=field.name)


IMAGE_KEYS = tuple(_keys())
"""All keys, in the order of documents."""
