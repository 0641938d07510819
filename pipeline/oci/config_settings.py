"""Flatten an image's config (JSON) into settings by name, to compare two images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

_HISTORY = ("rootfs", "history")
"""Members about layers, which are compared separately."""


def flatten_config(config: bytes) -> Mapping[str, str]:
    """Return setting's name → value as text, of a config that `parse_config` accepts.

    The names are those of config.md: `architecture`, `StopSignal`, `Env.PATH`, `Labels.NAME`, `ExposedPorts.8080/tcp`.
    Lists other than Env are JSON. Settings that relbuild does not write (such as a health check) are included.
    """
    document: dict[str, object] = json.loads(config)
    run = document.pop("config", None)
    flat = {name: value for name, value in document.items() if name not in _HISTORY}
    flat |= run if isinstance(run, dict) else {}
    return dict(sorted(item for name, value in flat.items() for item in _flat(name, value)))


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    if name == "Env" and isinstance(value, list):
        for line in value:
            variable, _, text = str(line).partition("=")
            yield f"{name}.{variable}", text
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{name}.{key}", _text(item)
    elif value not in (None, "", []):
        yield name, _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value in ({}, None) else json.dumps(value, sort_keys=True, ensure_ascii=False)
