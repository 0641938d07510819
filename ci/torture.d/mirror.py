"""A directory that is published to, promoted on, rolled back and pruned, and pulled from all the time."""

from __future__ import annotations

import sys
from pathlib import Path

import rounds

from tests.system.abreast.test_mirror_life import IMAGES, lived, served
from tests.system.parcels import small_products
from tests.system.rpm_factory import forge


def mirror(folder: Path, count: int, seed: int) -> tuple[int, str]:
    """One operation after the other, a pruner beside, and three clients."""
    with forge(folder) as made:
        products = small_products(folder / "products", made)
    images = [products.build(f"1.{number}", note="x" * number) for number in range(IMAGES)]
    with served("directory", folder / "site", products.workshop) as site:
        done, found = lived(site, images, count, seed, folder)
    for one in found:
        print(*one.incomplete, sep="\n", end="")
    pulls = sum(one.pulls for one in found)
    losses = sum(len(one.incomplete) for one in found)
    return losses, f"{pulls} pulls during {', '.join(f'{count} {what}' for what, count in sorted(done.items()))}"


if __name__ == "__main__":
    sys.exit(rounds.run("mirror", mirror))
