"""Makes and serves the look-alikes of all shipped platforms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.recipes import load_platforms
from tests.support.lookalikes.packages import Payload, unsigned_packages
from tests.support.lookalikes.server import ServedSite, served_lookalikes
from tests.support.lookalikes.site import LookalikeSite
from tests.support.lookalikes.trust import Trust
from tests.support.rpm_factory import Forge


def platform_names(platforms: Iterable[str]) -> list[str]:
    """The names of platforms that have a look-alike: all but those whose repositories this machine names."""
    return sorted(name for name in platforms if not name.startswith("local") and not name.endswith("-registered"))


@contextlib.contextmanager
def serve_platforms(recipes: Path, folder: Path) -> Iterator[ServedSite]:
    """Serve the platforms of `recipes/repositories.yaml`; what is made lies in `folder`."""
    trust = Trust.copy(recipes, folder / "recipes")
    platforms = load_platforms(trust.folder / "repositories.yaml")
    (folder / "forge").mkdir()
    made = Forge(folder / "forge", keys=False)
    packages = {payload: unsigned_packages(made, folder / "packages", payload) for payload in Payload}
    site = LookalikeSite(packages, trust.by_fingerprint)
    for name in platform_names(platforms):
        site.add(platforms[name], {})
    with served_lookalikes(site, folder) as served:
        yield served
