"""The commands that faults happen to: what each finds, what it is told, and what must come of it in the end."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from checks import tags
from products import recipe, repository
from runs import Ran, keys, relbuild

from tests.support.foreign_programs import docker_registry
from tests.support.rpm_factory import forge

_RULES = """
retention:
  - {tags: "*-*", keep: 1}
grace: 1s
"""
KEYS = ["--key", "signer.key"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where it all happens: `work` is made anew from a template for each run, so that paths stay the same."""

    root: Path
    registry: str
    begun: float = field(default_factory=time.time)
    """By relbuild's clock, which stands still in a run: the template was made in the hour after it, ..."""
    steps: Iterator[int] = field(default_factory=lambda: itertools.count(0, 60))

    @property
    def now(self) -> float:
        """… and here faults happen: all that stands there is older than any grace."""
        return self.begun + 3600

    @property
    def work(self) -> Path:
        """The folder that relbuild works in."""
        return self.root / "work"

    def template(self, name: str) -> Path:
        """What a command finds."""
        return self.root / "templates" / name

    def restore(self, name: str) -> None:
        """Put a template into the folder of work."""
        shutil.rmtree(self.work, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", self.template(name), self.work], check=True)

    def run(self, *words: str) -> Ran:
        """A command without a fault, which must work."""
        done = relbuild([*words, *_common(words[0])], self.work, self.root, at=self.begun + next(self.steps))
        if done.status != 0:
            sys.exit(f"relbuild {' '.join(words)} ended with {done.status}:\n{done.err}")
        return done


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command. `words` may depend on what stands in the folder of work; `finds` is the template; `came_of` says what
    must be the same as without a fault; `statuses`: how it may end when the machine refuses something."""

    name: str
    finds: str
    words: Callable[[Place], list[str]]
    came_of: Callable[[Place], object]
    statuses: tuple[int, ...] = (0, 8)
    sends: bool = False
    """Does it work on a server, whose state is not in the folder of work?"""
    rotten: bool = False
    """Is there something damaged before it, which it is to mend?"""
    then: tuple[str, ...] = ()


def _common(command: str) -> list[str]:
    words = ["--store", "store"]
    return words if command == "store" else [*words, "--progress", "none"]


def command(scenario: Scenario, place: Place) -> list[str]:
    """All its words."""
    words = scenario.words(place)
    return [*words, *_common(words[0])]


def again(scenario: Scenario, place: Place) -> list[str]:
    """The next run: the same, or what needs what it worked on."""
    words = list(scenario.then) or scenario.words(place)
    return [*words, *_common(words[0])]


def _digest_of(place: Place) -> object:
    index = json.loads((place.work / "output" / "a" / "index.json").read_text())
    return [entry["digest"] for entry in index["manifests"]]


def _lock(place: Place) -> object:
    return (place.work / "recipes" / "a.lock").read_text()


def _tags(place: Place) -> object:
    return tags(place.work / "mirror")


def _all(place: Place) -> object:
    mirror = place.work / "mirror"
    return tags(mirror), sorted(path.name for path in (mirror / "blobs" / "sha256").iterdir())


def _current(place: Place) -> object:
    return {name: digest for name, digest in tags(place.work / "mirror").items() if "-" not in name}


def _pulled(place: Place) -> object:
    """What the registry says of the tag: asked with relbuild's own command, which verifies it."""
    number = (place.work / "number").read_text()
    done = place.run("verify", f"registry+http://{place.registry}/n{number}/a:latest", *KEYS, "--json")
    return json.loads(done.out)["digest"]


def _to_registry(place: Place) -> list[str]:
    return ["publish", "a", "--to", f"registry+http://{place.registry}/n{(place.work / 'number').read_text()}", *KEYS]


_MIRROR = "dir:mirror"


def _night(_: Place) -> list[str]:
    return ["nightly", "recipes", "--to", _MIRROR, "--jobs", "1", *KEYS]


SCENARIOS = (
    Scenario("lock", "recipes", lambda _: ["lock", "recipes/a.yaml"], _lock),
    Scenario("cold build", "recipes", lambda _: ["build", "recipes/a.yaml"], _digest_of),
    Scenario("warm build", "changed", lambda _: ["build", "recipes/a.yaml"], _digest_of),
    Scenario("publish to a directory", "published", lambda _: ["publish", "a", "--to", _MIRROR, *KEYS], _current),
    Scenario("publish to a registry", "published", _to_registry, _pulled, sends=True),
    Scenario("promote", "two", lambda _: ["promote", f"{_MIRROR}/a:latest", "--to", "stable", *KEYS], _current),
    Scenario(
        "rollback",
        "two",
        lambda place: ["rollback", f"{_MIRROR}/a:latest", "--to", (place.work / "first").read_text(), *KEYS],
        _current,
    ),
    Scenario("prune", "two", lambda _: ["prune", _MIRROR, "--yes", "--rules", "rules.yaml"], _tags),
    Scenario(
        "undo",
        "pruned",
        lambda place: ["prune", _MIRROR, "--undo", (place.work / "stamp").read_text()],
        _tags,
        (0, 2, 8),
    ),
    Scenario("scrub", "rotten", lambda _: ["scrub", _MIRROR], _all, rotten=True),
    Scenario(
        "store gc",
        "published",
        lambda _: ["store", "gc", "--older-than", "0", "--locks", "recipes"],
        _digest_of,
        then=("build", "recipes/a.yaml"),
    ),
    Scenario("night", "night", _night, _current, statuses=(0, 1, 8)),
    Scenario("first night", "recipes", _night, _current, statuses=(0, 1, 8)),
)


@contextlib.contextmanager
def prepared(root: Path, names: frozenset[str]) -> Iterator[Place]:
    """A place with all templates that the scenarios in `names` find."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(docker_registry(root / "registry")) if "publish to a registry" in names else ""
        place = Place(root, host)
        (root / "templates").mkdir()
        place.work.mkdir()
        recipes = place.work / "recipes"
        recipes.mkdir()
        with forge(root) as made:
            (recipes / "repositories.yaml").write_text(repository(place.work, made))
        for name in "abc":
            recipe(recipes, name)
        (place.work / "rules.yaml").write_text(_RULES)
        keys(place.work / "signer")
        for name in _needed({one.finds for one in SCENARIOS if one.name in names}):
            _STEPS[name](place)
            subprocess.run(["cp", "-a", place.work, place.template(name)], check=True)
        yield place


def _needed(finds: set[str]) -> list[str]:
    """These templates and all that they are made from, in order."""
    wanted: set[str] = set()
    names = list(_STEPS)
    for name in finds:
        last = _BEGINNING.get(name, name)
        wanted |= {name, *(one for one in names[: names.index(last) + 1] if one not in _BEGINNING)}
    return [name for name in names if name in wanted]


def _nothing(place: Place) -> None:
    """The recipes alone."""


def _changed(place: Place) -> None:
    place.run("build", "recipes/a.yaml")
    recipe(place.work / "recipes", "a", "2.0")


def _published(place: Place) -> None:
    place.run("publish", "a", "--to", _MIRROR, *KEYS)
    (place.work / "first").write_text("sha256:" + str(tags(place.work / "mirror")["a:latest"]))
    place.run("build", "recipes/a.yaml")
    (place.work / "number").write_text("0")


def _two(place: Place) -> None:
    place.run("publish", "a", "--to", _MIRROR, *KEYS)


def _rotten(place: Place) -> None:
    """One bit of the largest blob that the store has too is another."""
    _anew(place, "two")
    held = {path.name for path in (place.work / "store" / "blobs").iterdir()}
    blobs = [path for path in (place.work / "mirror" / "blobs" / "sha256").iterdir() if path.name in held]
    path = max(blobs, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _pruned(place: Place) -> None:
    done = place.run("prune", _MIRROR, "--yes", "--rules", "rules.yaml", "--json")
    (place.work / "stamp").write_text(json.loads(done.out)["stamp"])


def _after_a_night(place: Place) -> None:
    """Of three products one has another label, one another check, and one is as it was."""
    _anew(place, "recipes")
    place.run(*_night(place))
    recipe(place.work / "recipes", "a", label="another")
    recipe(place.work / "recipes", "b", check="has run its scriptlet")


def _anew(place: Place, name: str) -> None:
    """Go back to a template."""
    shutil.rmtree(place.work)
    subprocess.run(["cp", "-a", place.template(name), place.work], check=True)


_STEPS: Mapping[str, Callable[[Place], None]] = {
    "recipes": _nothing,
    "changed": _changed,
    "published": _published,
    "two": _two,
    "pruned": _pruned,
    "rotten": _rotten,
    "night": _after_a_night,
}
"""Each works on what the one before it has left, but for those that begin anew with a template, `_BEGINNING`."""

_BEGINNING: Mapping[str, str] = {"rotten": "two", "night": "recipes"}

__all__ = ["SCENARIOS", "Place", "Scenario", "again", "command", "prepared"]
