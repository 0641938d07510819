"""Drafting of a recipe's `smoke:` section from a running instance: `smoke --record`.

Each kind of check drafts its own; a person reviews them.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable

from pipeline.errors import RelbuildError, SmokeError
from pipeline.model.check_kind import DraftedCheck
from pipeline.model.checks import CHECK_KINDS
from pipeline.model.image import Image
from pipeline.model.probe import Probe, Unanswered
from pipeline.model.smoke import SmokePlan
from pipeline.sandbox import Instance
from pipeline.smoke.instance_probe import InstanceProbe, describe_exit
from pipeline.smoke.probes import run_check
from pipeline.smoke.procfs import list_listeners


def draft_checks(
    instance: Instance, image: Image, plan: SmokePlan, *, settling: float, pause: Callable[[float], object]
) -> str:
    """Draft `smoke:` of a recipe as YAML, from a running instance.

    Waits until the instance is ready as `plan` says, or else until it listens, and `settling` seconds more; then stops
    it, for the `stop` check.

    Raises SmokeError `not-recordable` if it ends by itself.
    """
    if plan.ready is not None:
        run_check(plan.ready, instance, image)
    else:
        _wait_until_it_listens(instance, settling, pause)
    pause(settling)
    try:
        return draft_yaml(InstanceProbe(instance, image))
    except Unanswered as error:
        if isinstance(error.__cause__, RelbuildError):
            raise error.__cause__ from None
        raise SmokeError(
            "not-recordable",
            f"the instance ended with {describe_exit(instance)}",
            hint="check its output; add what it needs under 'image' or 'files'",
        ) from error


def draft_yaml(probe: Probe) -> str:
    """Draft the checks of every kind through a probe, and stop the instance. Raises Unanswered."""
    drafts = sorted((kind.draft for kind in CHECK_KINDS if kind.draft is not None), key=lambda draft: draft.order)
    signs: list[DraftedCheck] = [{"port": found.port} for found in probe.listeners() if found.protocol == "tcp"]
    checks = [check for draft in drafts for check in draft.make(probe)]
    signs += [{"log": check["log"]} for check in checks if "log" in check]
    lines = ["smoke:", *(f"  ready: {_yaml(sign)}" for sign in signs[:1])]
    lines.append("  checks:")
    lines += [f"    - {_yaml(check)}" for check in checks]
    return "\n".join(lines) + "\n"


def _wait_until_it_listens(instance: Instance, settling: float, pause: Callable[[float], object]) -> None:
    deadline = time.monotonic() + max(10 * settling, 1.0)
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline and not list_listeners(instance):
            pause(0.05)


def _yaml(value: object) -> str:
    """Return a value in YAML's flow style, on one line; all texts are quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z][\w-]*", key) else json.dumps(key)
