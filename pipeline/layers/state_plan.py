"""Plan of the state layer's scriptlets, made before the layers below it are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.layers.transaction import ScriptStep, plan_scripts
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.header import PackageHeader
from pipeline.packages import compare_evr, lua_runtime
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class StatePlan:
    """The scripts to run, in order, and the folder with rpm's Lua, if one of them needs it."""

    steps: tuple[ScriptStep, ...]
    lua: Path | None


def plan_state_layer(headers: Sequence[PackageHeader], below: Sequence[PackageHeader], store: Store) -> StatePlan:
    """Plan the scripts of installing `headers`, in this order.

    `below` are the parent image's packages. Raises EnvironmentLacking `rpm-missing` where one needs Lua.
    """
    present = {str(header.nevra): tuple(file.path for file in header.files) for header in (*below, *headers)}
    steps = plan_scripts(headers, present=present, compare=compare_evr, below=below)
    lua = lua_runtime(store) if any(step.interpreter[:1] == ("<lua>",) for step in steps) else None
    return StatePlan(steps, lua)
