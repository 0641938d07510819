"""Parsing of the options of `run`: ports, mounts, environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipeline.cli.environment_options import environment_options, malformed_option
from pipeline.launch import HostMount, RunOptions
from pipeline.model.limits import Limits
from pipeline.model.published_port import PORT_MOST, PublishedPort

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def run_options(
    instances: int,
    limits: Limits,
    *,
    publish: Sequence[str],
    volume: Sequence[str],
    env: Sequence[str],
    config: Sequence[str],
    surroundings: Mapping[str, str],
) -> RunOptions:
    """Parse the options of `run`; `surroundings` is relbuild's environment. Raises UsageError."""
    environment = environment_options(env, surroundings)
    mounts = [*(_volume(text) for text in volume), *(_config(text) for text in config)]
    return RunOptions(instances, limits, tuple(map(_published, publish)), tuple(mounts), environment)


def _published(text: str) -> PublishedPort:
    host, separator, container = text.rpartition(":")
    words = (host if separator else container, container)
    if not all(word.isascii() and word.isdigit() and int(word) <= PORT_MOST for word in words) or container == "0":
        raise malformed_option("--publish", text, "HOST:CONTAINER, such as 8080:80, or one port for both; 0: any")
    return PublishedPort(int(words[0]), int(words[1]))


def _volume(text: str) -> HostMount:
    source, _, path = text.rpartition(":")
    if not source or not path.startswith("/") or (not _NAME.fullmatch(source) and "/" not in source):
        raise malformed_option("--volume", text, "NAME:/path/in/container or ./folder:/path/in/container")
    return HostMount(source, path, named="/" not in source)


def _config(text: str) -> HostMount:
    source, _, path = text.rpartition(":")
    if not source or not path.startswith("/"):
        raise malformed_option("--config", text, "FILE:/path/in/container")
    return HostMount(source, path, read_only=True)
