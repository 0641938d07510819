"""`ci/lookalikes DIR [COMMAND…]`: runs a command while the look-alikes of all shipped platforms are served."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.lookalikes.platforms import serve_platforms

RECIPES = Path(__file__).parents[3] / "recipes"


def main(folder: str, *command: str) -> int:
    """Serve in `folder` until the command ends; its exit code."""
    place = Path(folder)
    place.mkdir(parents=True)
    place.chmod(0o700)
    with serve_platforms(RECIPES, place.absolute()) as served:
        environment = {**os.environ, **served.environment, "LOOKALIKES": str(served.recipes)}
        return subprocess.run(command or (os.environ.get("SHELL", "sh"),), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
