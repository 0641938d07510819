"""`ci/lint` checks the types of every program."""

from __future__ import annotations

import re
from pathlib import Path

CI = Path(__file__).parents[3] / "ci"


def test_every_folder_of_programs_is_checked() -> None:
    """Folders are named there, because those with a name in common cannot be checked together."""
    named = re.findall(r"^check ci/(?:\{(.*)\}|(.*))\.d$", (CI / "lint").read_text(), re.MULTILINE)
    checked = {f"{name}.d" for many, one in named for name in (many or one).split(",")}
    assert checked == {path.parent.name for path in CI.glob("*.d/*.py")}
