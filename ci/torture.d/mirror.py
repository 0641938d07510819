"""A directory that two publish to at once, promote on, roll back and prune, and that is pulled from all the time."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import rounds

from tests.support.mirror_life import (
    IMAGES,
    TAGS,
    Site,
    believed,
    history_of,
    lived,
    served,
    whole_by_every_tag,
)
from tests.support.product_builds import small_products
from tests.support.rpm_factory import forge

PUBLISHERS = 2


def mirror(folder: Path, count: int, seed: int) -> tuple[int, str]:
    """Two publishers, who take the operations that were drawn one after the other, a pruner beside, and three clients;
    then every tag is looked at. A round is an operation of one of the two publishers."""
    with forge(folder) as made:
        products = small_products(folder / "products", made)
    images = [products.build(f"1.{number}", note="x" * number) for number in range(IMAGES)]
    with served("directory", folder / "site", products.build_env) as site:
        life = lived(site, images, count, seed, folder, publishers=PUBLISHERS)
        lost = [*life.wrong, *(line for one in life.found for line in one.incomplete), *_problems(site)]
    print(*lost, sep="\n", end="\n" if lost else "")
    pulls = sum(one.pulls for one in life.found)
    done = ", ".join(f"{count} {what}" for what, count in sorted(life.done.items()))
    return len(lost), f"{pulls} pulls during {done}"


def _problems(site: Site) -> Iterator[str]:
    """What is wrong when all is quiet: by any tag an image that is not whole, a tag that its newest signed move does
    not name, a history with a gap or in which two moves have one number."""
    for look in (whole_by_every_tag, believed):
        try:
            look(site)
        except Exception as error:  # whatever it is, it is a loss, and the result is written
            yield f"afterwards: {type(error).__name__}: {error}"
    for tag in TAGS:
        happened = [one for one in history_of(site, tag) if one.happened]
        numbers = [one.number for one in happened]
        if numbers != sorted(set(numbers)):
            yield f"{tag}: moves are numbered {numbers}"
        for earlier, later in itertools.pairwise(one.move for one in happened):
            if later.before != earlier.after:
                yield f"{tag}: moved from {later.before}, and was at {earlier.after}"


if __name__ == "__main__":
    sys.exit(rounds.run("mirror", mirror))
