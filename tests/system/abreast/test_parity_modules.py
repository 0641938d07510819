"""Modules that require one another are enabled as dnf enables them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.model.platform import PackageRepository, Platform
from tests.support.dnf_parity import SEED, Ours, artifact, compared, dnf, module_document
from tests.support.rpmmd import Rpm, write_repository
from tests.support.sampling import SOAK

STREAMS = ["1.2", "1.20", "9"]
"""Without quotes the first two look like the same number."""


def random_requirements(chance: random.Random) -> tuple[str, list[Rpm]]:
    """modules.yaml of modules that require one another in every form, and their packages, one of each build.

    No requirement contradicts a default or another one, and modules without default are required by stream: elsewhere
    the order of libsolv's rules decides.
    """
    documents: list[str] = []
    rpms: list[Rpm] = []
    forms = [*([one] for one in STREAMS), STREAMS[:2], STREAMS, [], ["-9"], ["-9", "-1.2"], ["1.2", "gone"], ["gone"]]
    modules = [f"m{number}" for number in range(5)]
    defaults = {one: chance.choice(STREAMS) for one in modules if chance.random() < 0.6}
    fixed = {one: chance.choice(STREAMS) for one in modules if one not in defaults}
    for module in modules:
        for stream in chance.sample(STREAMS, chance.randint(1, 3)):
            static = chance.random() < 0.3
            others = chance.sample([one for one in [*modules, "gone"] if one != module], chance.choice([0, 1, 1, 2]))
            wanted = {
                one: chance.choice([form for form in forms if _holds(form, defaults.get(one), fixed.get(one))])
                for one in others
                if one != "gone" or chance.random() < 0.2
            }
            for version in range(1, chance.randint(2, 4)):
                rpm = Rpm(f"x-{module}-{stream}-{version}")
                text = module_document(module, stream, version, [artifact(rpm)], []).replace(f'"{stream}"', stream)
                requires = "".join(f", {one}: [{', '.join(streams)}]" for one, streams in wanted.items())
                text = text.replace("platform: [el9]", f"platform: [el9]{requires}")
                context = f"  context: c{0 if static else chance.randint(0, 1)}\n"
                context = f"  static_context: true\n{context}" if static else context
                documents.append(text.replace("  context: c0ffee00\n", context))
                rpms.append(rpm)
    documents += [_default(module, stream) for module, stream in defaults.items()]
    chance.shuffle(documents)
    return "".join(documents), rpms


def _holds(form: Sequence[str], default: str | None, fixed: str | None) -> bool:
    """Whether a requirement holds with a module's default stream, or is for its `fixed` one."""
    if fixed is not None:
        return form in ([fixed], ["gone"], ["1.2", "gone"] if fixed == "1.2" else ["gone"])
    return default is None or not form or default in form or (form[0].startswith("-") and f"-{default}" not in form)


def _default(module: str, stream: str) -> str:
    return f"---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: {module}\n  stream: {stream}\n...\n"


@pytest.mark.parametrize("number", range(60 if SOAK else 12))
def test_random_modules_that_require_one_another(tmp_path: Path, number: int) -> None:
    seed = SEED + 3000 + number
    print("seed", seed)
    chance = random.Random(seed)
    text, rpms = random_requirements(chance)
    url = write_repository(tmp_path / "a", [*rpms, Rpm("plain")], modules=text)
    own = Ours(tmp_path, Platform("p", (PackageRepository("a", baseurls=(url,)),)), {})
    sets = [["x-*", "plain"], ["plain"]]
    compared(sets, dnf(tmp_path, {"a": {"url": url}}, sets), [own.choose(texts) for texts in sets])
