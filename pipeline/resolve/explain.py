"""Why a package is in the image, told as chains from a request to it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pipeline.errors import UsageError
from pipeline.model.resolution import Chosen, Reason, Resolution


def explain(resolution: Resolution, name: str) -> str:
    """For every package called `name` (a name or a NEVRA): its layer, its reasons, and behind each the chain
    back to a request. Raises UsageError `package-not-chosen`."""
    by_nevra = {str(one.package.nevra): one for one in resolution.chosen}
    found = [one for key, one in by_nevra.items() if name in {key, one.package.nevra.name}]
    if not found:
        names = sorted({one.package.nevra.name for one in resolution.chosen})
        close = difflib.get_close_matches(name, names, 3, 0.6)
        raise UsageError(
            "package-not-chosen",
            f"'{name}' is not in the image",
            hint=f"did you mean {' or '.join(close)}?" if close else "`relbuild inspect` lists what is in it",
        )
    return "\n\n".join(_tell(one, by_nevra) for one in found)


def _tell(chosen: Chosen, by_nevra: Mapping[str, Chosen]) -> str:
    lines = [f"{chosen.package.nevra} (layer {chosen.layer}, repository {chosen.package.repository})"]
    for reason in chosen.reasons:
        lines.append(f"  {_sentence(reason)}")
        lines += [f"    {line}" for line in _chain(reason, by_nevra, {str(chosen.package.nevra)})]
    return "\n".join(lines)


def _chain(reason: Reason, by_nevra: Mapping[str, Chosen], seen: set[str]) -> list[str]:
    """Sentences from the package behind `reason` back to a request; each takes that package's first reason that
    leads to one that was not met yet."""
    lines: list[str] = []
    while reason.by in by_nevra and reason.by not in seen:
        seen.add(reason.by)
        behind = by_nevra[reason.by].reasons
        following = next((one for one in behind if one.by not in seen), None)
        if following is None:
            break
        lines.append(f"{by_nevra[reason.by].package.nevra.name}: {_sentence(following)}")
        reason = following
    return lines


def _sentence(reason: Reason) -> str:
    match reason.kind:
        case "requested":
            return f"the recipe asks for '{reason.by}'"
        case "local":
            return f"the recipe names it by path, in layer {reason.by}"
        case "supplements":
            return f"supplements {reason.by} ({reason.what})"
        case _:
            return f"{reason.by} {reason.kind} {reason.what}"
