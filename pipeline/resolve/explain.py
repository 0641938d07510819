"""Explain why packages are in an image, as text with chains back to a request."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pipeline.errors import UsageError
from pipeline.model.checks.packages_check import package_forms
from pipeline.model.parent_image import recipe_of_layer
from pipeline.model.resolution import Chosen, Reason


def explain(chosen: Sequence[Chosen], name: str) -> str:
    """Return the layer and the reasons of every package called `name`, as text.

    `name` may have any of the forms in which a package is written, such as a NEVRA without its epoch. Each reason is
    followed by the chain back to a request; for a parent's package also the parent is named.

    Raises UsageError `package-not-chosen`.
    """
    by_nevra = {str(one.package.nevra): one for one in chosen}
    found = [one for key, one in by_nevra.items() if name in package_forms(key)]
    if not found:
        names = sorted({one.package.nevra.name for one in chosen})
        close = difflib.get_close_matches(name, names, 3, 0.6)
        raise UsageError(
            "package-not-chosen",
            f"'{name}' is not in the image",
            hint=f"did you mean {' or '.join(close)}?" if close else "the recipe's lock lists the image's packages",
        )
    return "\n\n".join(_tell(one, by_nevra) for one in found)


def _tell(chosen: Chosen, by_nevra: Mapping[str, Chosen]) -> str:
    lines = [f"{chosen.package.nevra} (layer {chosen.layer}, repository {chosen.package.repository})"]
    parent = recipe_of_layer(chosen.layer)
    if parent is not None:
        lines.append(f"  from the parent image '{parent}':")
    for reason in chosen.reasons:
        lines.append(f"  {_sentence(reason, chosen)}")
        lines += [f"    {line}" for line in _chain(reason, by_nevra, {str(chosen.package.nevra)})]
    return "\n".join(lines)


def _chain(reason: Reason, by_nevra: Mapping[str, Chosen], seen: set[str]) -> list[str]:
    """Return the sentences from the package behind `reason` back to a request.

    Each takes that package's first reason that leads to one that was not met yet.
    """
    lines: list[str] = []
    while reason.by in by_nevra and reason.by not in seen:
        seen.add(reason.by)
        behind = by_nevra[reason.by].reasons
        following = next((one for one in behind if one.by not in seen), None)
        if following is None:
            break
        lines.append(f"{by_nevra[reason.by].package.nevra.name}: {_sentence(following, by_nevra[reason.by])}")
        reason = following
    return lines


def _sentence(reason: Reason, chosen: Chosen) -> str:
    parent = recipe_of_layer(chosen.layer)
    who = f"the recipe '{parent}'" if parent is not None else "the recipe"
    match reason.kind:
        case "requested":
            return f"{who} asks for '{reason.by}'"
        case "local":
            return f"{who} adds it by path, in layer {reason.by}"
        case "supplements":
            return f"supplements {reason.by} ({reason.what})"
        case _:
            return f"{reason.by} {reason.kind} {reason.what}"
