"""A night with a new key that is told of the former one signs again what the former one signed, and builds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.catalogue import PASSWORD, SmallCatalogue
from tests.support.cheap_keys import write_cheap_key
from tests.support.night_answers import outcomes, product
from tests.support.sites import open_site

pytestmark = pytest.mark.long

NEW, BOTH = ("--key", "new.key"), ("--key", "new.key", "--former-key", "night.pub")


@pytest.mark.parametrize("kind", ["directory", "registry"])
def test_what_the_former_key_signed_is_signed_again(kind: str, small: SmallCatalogue, tmp_path: Path) -> None:
    write_cheap_key(small.folder, "new", PASSWORD)
    with open_site("registry" if kind == "registry" else "nginx", tmp_path / "site") as site:
        to = site.to if kind == "registry" else "dir:mirror"

        def night(*words: str, store: str = "store") -> Any:
            code, said = small.nightly("--only", "lone", "--only", "third", *words, to=to, store=store)
            assert code == 0
            return said

        def ran(command: str, *words: str) -> str:
            done = small.in_this_process(command, *words)
            assert done.returncode == 0, done.stderr
            return done.stdout + done.stderr

        night()
        small.package("lone", "2")
        small.index("small")
        assert outcomes(night()) == {"lone": "built", "third": "unchanged"}
        ran("promote", f"{to}/lone:2", "--to", "stable", "--key", "night.key")
        ran("rollback", f"{to}/lone:latest", "--key", "night.key")
        assert small.in_this_process("verify", f"{to}/lone:latest", "--key", "new.pub").returncode == 5
        said = night(*BOTH)
        assert outcomes(said) == {"lone": "unchanged", "third": "unchanged"}
        assert not any(one["moved"] for one in said["products"])
        for reference in ("lone:latest", "lone:stable", "lone:2", "third:latest"):
            ran("verify", f"{to}/{reference}", "--key", "new.pub")
            ran("verify", f"{to}/{reference}", "--key", "night.pub")
        # A person moved it back with the former key alone.
        again = product(night(*BOTH, "--retest"), "lone")
        assert (again["outcome"], again["moved"]) == ("retested", []) and "'latest' stays at " in again["why"]
        # The former key is no longer needed, also where nothing is known but what the mirror says.
        for store in ("store", "another"):
            assert outcomes(night(*NEW, store=store))["third"] == "unchanged"


def test_a_plan_tells_what_the_former_key_spares(small: SmallCatalogue) -> None:
    write_cheap_key(small.folder, "new", PASSWORD)

    def planned(*words: str) -> str:
        return small.planned("--plan", "--only", "lone", *words).stderr

    for known in (False, True):  # by the mirror alone, and by the store
        assert planned(*NEW).count("\nbuild     lone: ") == 1
        assert planned(*BOTH).count("\nnothing   lone: ") == 1
        assert planned(*NEW, "--former-key", "new.pub").count("\nbuild     lone: ") == 1
        if not known:
            assert small.run("--only", "lone").returncode == 0
