"""Assign each package to the lowest layer that requires it, and find its reasons.

A package belongs to the lowest layer whose requests reach it over requirements (and recommendations, where
weak dependencies are on). Of several chosen providers of one requirement, those that the layer has already
count; only then one is added, so that a product's packages do not get into the base that others share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.resolution import Reason

REASONS = 4
"""Reasons that are kept for each package: all packages require glibc, and people read locks."""


@dataclass(frozen=True, slots=True)
class Need:
    """One requirement of a package.

    `text` is the requirement, `providers` are the chosen packages that satisfy it, sorted. `every`: all of them are
    needed (rich dependencies), else one. `kind` is `requires` or `recommends`. `below`: the parent image satisfies it.
    """

    kind: str
    text: str
    providers: tuple[str, ...]
    every: bool = False
    below: bool = False


@dataclass(frozen=True, slots=True)
class LayerRequests:
    """The requests of one layer.

    `requests`: (text of the request, the chosen packages that satisfy it); `local`: packages by path.
    """

    layer: str
    requests: tuple[tuple[str, tuple[str, ...]], ...]
    local: tuple[str, ...] = ()


def assign_layers(
    wanted: Sequence[LayerRequests], needs: Mapping[str, Sequence[Need]], supplements: Mapping[str, Sequence[Need]]
) -> dict[str, str]:
    """Return the layer of every package in `needs`.

    `wanted` is lowest first; `supplements` says for a package which chosen packages it supplements.
    """
    layers: dict[str, str] = {}
    for one in wanted:
        roots = sorted({name for _, names in one.requests for name in names} | set(one.local))
        _reach(roots, one.layer, layers, needs)
    rank = {one.layer: number for number, one in enumerate(wanted)}
    while left := sorted(set(needs) - layers.keys()):
        # Packages that no request reaches supplement another, or have no known reason.
        found = (
            (name, [layers[p] for need in supplements.get(name, ()) for p in need.providers if p in layers])
            for name in left
        )
        name, over = next((one for one in found if one[1]), (left[0], []))
        layer = max(over, key=lambda layer: rank[layer], default=wanted[-1].layer)
        _reach([name], layer, layers, needs)
    return layers


def _reach(roots: Sequence[str], layer: str, layers: dict[str, str], needs: Mapping[str, Sequence[Need]]) -> None:
    """Put `roots` and all that they need into `layer`, unless it is in a lower one."""
    waiting = [name for name in roots if name not in layers]
    layers.update(dict.fromkeys(waiting, layer))
    choices: list[Need] = []
    while waiting or choices:
        if waiting:
            new: list[str] = []
            for need in needs[waiting.pop()]:
                if need.every or len(need.providers) == 1:
                    new += need.providers
                elif need.providers:
                    choices.append(need)
        else:
            choices.sort(key=lambda need: (need.text, need.providers))
            need = choices.pop(0)
            if any(name in layers for name in need.providers):
                continue
            new = [_likeliest(need)]
        for name in new:
            if name not in layers:
                layers[name] = layer
                waiting.append(name)


def _likeliest(need: Need) -> str:
    """Return the provider whose name is the requirement's, else the first by name."""
    called = need.text.split()[0]
    return min(need.providers, key=lambda name: (not name.startswith(f"{called}-"), name))


def tell_reasons(
    wanted: Sequence[LayerRequests], needs: Mapping[str, Sequence[Need]], supplements: Mapping[str, Sequence[Need]]
) -> dict[str, tuple[Reason, ...]]:
    """Return the reasons why each package is there, most direct first, at most REASONS.

    They are requests, then the link of the shortest chain from a request, then others by name.
    """
    direct: dict[str, list[Reason]] = {name: [] for name in needs}
    for one in wanted:
        for name in one.local:
            direct[name].append(Reason("local", one.layer))
        for text, names in one.requests:
            for name in names:
                direct[name].append(Reason("requested", text))
    parents = _shortest([name for name in sorted(needs) if direct[name]], needs)
    others: dict[str, list[Reason]] = {name: [] for name in needs}
    for name in sorted(needs):
        for need in needs[name]:
            for provider in need.providers:
                if provider != name:
                    others[provider].append(Reason(need.kind, name, need.text))
        for need in supplements.get(name, ()):
            others[name] += [Reason("supplements", trigger, need.text) for trigger in need.providers]
    reasons = {}
    for name, rest in others.items():
        link = [parents[name]] if name in parents else []
        by_requirer = {(one.kind, one.by): one for one in reversed(rest)}
        ordered = sorted(by_requirer.values(), key=lambda one: (one.kind != "requires", one.by, one.what))
        reasons[name] = tuple(dict.fromkeys([*direct[name], *link, *ordered]))[:REASONS]
    return reasons


def _shortest(roots: Sequence[str], needs: Mapping[str, Sequence[Need]]) -> dict[str, Reason]:
    """Return each package's link on a shortest chain from a root.

    The link is the reason that ties it to the package before it.
    """
    links: dict[str, Reason] = {}
    seen = set(roots)
    level = list(roots)
    while level:
        following = []
        for name in level:
            for need in needs[name]:
                for provider in need.providers:
                    if provider not in seen:
                        seen.add(provider)
                        links[provider] = Reason(need.kind, name, need.text)
                        following.append(provider)
        level = sorted(following)
    return links
