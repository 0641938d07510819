"""Packs a product's package layers in a store that has its packages and nothing more, and says what that took.

A child process of `ci/bench all layers`: RECIPE STORE COMPRESSION prepare|pack|unpack. `pack` makes the blobs alone;
`unpack` also the trees that scriptlets and tests see, and reads the blobs back, as a build does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from turns import used

from pipeline.build.build_image import lock
from pipeline.build.build_stages import compose_layers
from pipeline.compression import Compression
from pipeline.heap import use_one_arena
from pipeline.layers import building_layers
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store


def main() -> None:
    """Lock, compose, and pack if that is asked for."""
    use_one_arena()  # As the command line does.
    what = sys.argv[4]
    recipe, store, compression = Path(sys.argv[1]), Path(sys.argv[2]), Compression(sys.argv[3])
    build_env = BuildEnvironment(Store.open(store), QUIET, dict(os.environ), time.time)
    options = BuildOptions(recipe, recipe.parent / "repositories.yaml", compression=compression, smoke=False)
    composition = compose_layers(lock(options, build_env))
    if what == "prepare":
        return
    processor, began = used(), time.monotonic()
    with building_layers(
        composition.layers,
        store=build_env.store,
        compression=compression,
        unpack=what == "unpack",
        progress=build_env.progress,
    ) as built:
        if what == "unpack":
            for layer in built:
                layer.blob.result()
        took, processor = time.monotonic() - began, used() - processor
    print(
        json.dumps(
            {
                "took": took,
                "cpu": processor,
                "blobs": [str(build_env.store.blob(layer.blob.digest)) for layer in (made.layer for made in built)],
            }
        )
    )


main()
