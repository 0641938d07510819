"""There is one door to the tags by which people pull, and it asks for what the gate has cleared: shown for every public
function of the rooms that know mirrors, found by looking, so that a new one that asks for less fails here."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import IOBase
from pathlib import Path

import pytest

import pipeline.mirror
import pipeline.release
from pipeline.digest import Digest
from pipeline.mirror.gate import Cleared
from pipeline.mirror.protocol import Mirror, Repository, ignore_progress, is_auxiliary
from pipeline.model.manifests import Manifest
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.source import nodes, trees

ROOMS = (Path(next(iter(pipeline.mirror.__path__))), Path(next(iter(pipeline.release.__path__))))

# --- what the code says ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """A function as it is written: `room.module.Class.name`, its parameters' annotations, what it calls."""

    place: str
    asks: str
    calls: frozenset[str]

    @property
    def name(self) -> str:
        return self.place.rpartition(".")[2]


@cache
def written() -> tuple[Written, ...]:
    """Every function of the two rooms, those inside others too."""
    found: list[Written] = []
    for room in ROOMS:
        for path in sorted(room.rglob("*.py")):
            tree = trees()[path]
            imports = [one for node in nodes(tree) if isinstance(node, ast.ImportFrom) for one in node.names]
            renamed = {one.asname: one.name for one in imports if one.asname}
            found += _within(tree, f"{room.name}.{path.stem}", "", renamed)
    return tuple(found)


def _within(node: ast.AST, place: str, around: str, renamed: dict[str, str]) -> Iterator[Written]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            # What a dataclass holds, its methods have been given.
            held = " ".join(ast.unparse(one.annotation) for one in child.body if isinstance(one, ast.AnnAssign))
            yield from _within(child, f"{place}.{child.name}", held, renamed)
        elif isinstance(child, ast.FunctionDef):
            given = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
            asks = " ".join(ast.unparse(one.annotation) for one in given if one.annotation)
            called = {ast.unparse(one.func) for one in ast.walk(child) if isinstance(one, ast.Call)}
            calls = frozenset(renamed.get(name, name) for name in called)
            yield Written(f"{place}.{child.name}", f"{asks} {around}", calls)
            yield from _within(child, f"{place}.{child.name}", around, renamed)
        else:
            yield from _within(child, place, around, renamed)


def callers(*endings: str) -> set[str]:
    """Functions that call something whose name ends so."""
    return {one.place for one in written() if any(call.endswith(endings) for call in one.calls)}


def test_whoever_points_a_tag_has_been_given_what_was_cleared() -> None:
    pointing = [one for one in written() if any(call.endswith(".point") for call in one.calls)]
    assert {one.place for one in pointing} == {"mirror.tag_moves.set_immutable_tag", "mirror.tag_moves.TagMover._move"}
    for one in pointing:
        assert "Cleared" in one.asks, f"{one.place} moves tags by which people pull, and asks for no Cleared"


def test_whoever_has_tags_moved_was_given_what_was_cleared_or_asks_the_gate() -> None:
    """From the two functions that point tags up to the narratives, by the names that they call."""
    every = written()
    movers = {"set_immutable_tag", "TagMover"}
    found: dict[str, Written] = {}
    while True:
        reached = {one.place: one for one in every if {call.rpartition(".")[2] for call in one.calls} & movers}
        if reached == found:
            break
        found = reached
        movers |= {one.name for one in found.values()} - {"move"}
    assert {
        "mirror.push.push",
        "release.publish.publish",
        "release.move.promote",
        "release.move.rollback",
        "release.copy.copy",
    } <= set(found)
    for one in found.values():
        given = any(word in one.asks for word in ("Cleared", "Upload", "TagMover"))
        made = {call.rpartition(".")[2] for call in one.calls} & {
            "Cleared",
            "clear_published",
            "prepare_upload",
            "copy_one",
            "_copy_verified",
        }
        assert given or made, f"{one.place} has tags moved: it must be given a Cleared, or make one"


def test_only_these_reach_what_lies_beneath_the_door() -> None:
    """A directory's links and a registry's PUT know nothing of the gate: who calls them is written down here."""
    assert callers("paths.move") == {
        "mirror.directory_repository.DirectoryRepository.point",
        "mirror.directory_repository.DirectoryRepository.put_auxiliary",
        "mirror.directory_prune._point",  # a list of referrers, `sha256-HEX`
        "mirror.quarantine_folder.Pruning.restore",  # a tag that was there before it was pruned, where none is now
    }
    assert callers("replace_symlink") == {
        "mirror.mirror_paths.RepositoryPaths.move",
        "mirror.lost_tags.relink_tag",  # a file with a manifest's bytes where a tag was, in a copy made without links
    }
    assert callers("relink_tag") == {"mirror.directory_scrub._DirectoryScrub._put_tag_aside"}
    assert callers("self._put") - callers("self._put_blob") == {
        "mirror.registry_repository.RegistryRepository.put_manifest",
        "mirror.registry_repository.RegistryRepository._move",
        "mirror.referrers_list.ReferrersList.attach_all",
        "mirror.referrers_list.ReferrersList._write",  # the fallback tag, `sha256-HEX`
        "mirror.removal.Removal._with_its_manifest",  # a tag that is about to go, or goes back to what it was
        "mirror.layout_repository.LayoutRepository.put_manifest",
        "mirror.layout_repository.LayoutRepository.attach",
        "mirror.layout_repository.LayoutRepository.put_auxiliary",
    }
    # `RepositoryRequests.ask` sends no PUT.
    assert callers("requests.client.ask") == {"mirror.registry_repository.RegistryRepository._put"}


def test_cleared_is_made_by_asking_the_gate_alone() -> None:
    assert callers("Cleared") == {
        "release.publish.prepare_upload",
        "release.publish.prepare_upload.cleared",
        "release.publish_members._clear_member",
        "release.publish_members.publish_index",
        "release.publish_members.publish_index.clear",
        "release.verify_reference.clear_published",
    }
    assert not callers("object.__new__", "Cleared.__new__")


def test_pointing_a_tag_asks_for_what_was_cleared(any_mirror: Mirror) -> None:
    for implementation in (Repository, type(any_mirror.repository("tiny"))):
        cleared = inspect.signature(implementation.point).parameters["cleared"]
        assert cleared.annotation in (Cleared, "Cleared") and cleared.default is inspect.Parameter.empty


# --- what the code does ------------------------------------------------------------------------------------


@pytest.fixture
def repository(any_mirror: Mirror) -> Repository:
    return any_mirror.repository("tiny")


def pullable(repository: Repository) -> dict[str, Digest | None]:
    return {tag: repository.resolve(tag) for tag in repository.tags() if not is_auxiliary(tag)}


def test_no_other_verb_of_a_repository_moves_a_tag_to_pull_by(repository: Repository, tmp_path: Path) -> None:
    """Each is called with everything that could make it: nothing comes of it, or it refuses."""
    store = Store.open(tmp_path / "store")
    old = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1.0")
    image = mirror_images.image(store, 2)
    new = mirror_images.put(repository, store, image)
    note = mirror_images.speaks_of(new.descriptor, "a note")
    repository.put_blob(mirror_images.EMPTY, b"{}")
    given: dict[str, tuple[object, ...]] = {
        "tag": ("1.0", "latest"),
        "manifest": (new, note),
        "reference": ("1.0", "latest", new.digest),
        "digest": (image.config_descriptor.digest,),
        "subject": (new.digest,),
        "descriptor": (image.config_descriptor,),
        "content": (image.config_bytes,),
        "store": (store,),
        "expected": (None, old.digest),
        "elsewhere": ((),),
        "advance": (ignore_progress,),
        "manifests": ((note,), (new,)),
        "new": (False, True),
    }
    verbs = {
        name: getattr(repository, name)
        for name, _ in inspect.getmembers(type(repository), inspect.isfunction)
        if not name.startswith("_")
    }
    assert {"point", "put_auxiliary", "put_manifest", "attach", "attach_all", "remove_tag"} <= set(verbs)
    # These take tags away, which is not what this is about.
    for name in set(verbs) - {"point", "remove_tag", "remove_manifest"}:
        for arguments in combinations(verbs[name], given):
            with contextlib.suppress(ValueError, KeyError):
                done = verbs[name](**arguments)
                if isinstance(done, IOBase):
                    done.close()
            assert pullable(repository) == {"1.0": old.digest}, f"{name} with {arguments}"


def combinations(verb: Callable[..., object], given: dict[str, tuple[object, ...]]) -> Iterator[dict[str, object]]:
    names = list(inspect.signature(verb).parameters)
    unknown = [name for name in names if name not in given]
    assert not unknown, f"say here what {verb.__name__} is to be given as {unknown}"
    for values in itertools.product(*(given[name] for name in names)):
        yield dict(zip(names, values, strict=True))


@pytest.mark.parametrize("tag", ["latest", "stable", "1.0", "sha256", f"sha256-{'a' * 63}", "move", "sources-"])
def test_an_auxiliary_tag_cannot_be_one_to_pull_by(repository: Repository, tmp_path: Path, tag: str) -> None:
    store = Store.open(tmp_path / "store")
    whole = mirror_images.put(repository, store, mirror_images.image(store, 1))
    with pytest.raises(ValueError, match="auxiliary"):
        repository.put_auxiliary(tag, whole, None)
    assert repository.tags() == ()


def test_what_was_cleared_for_one_tag_is_not_pointed_at_by_another(repository: Repository, tmp_path: Path) -> None:
    """The operator's rules differ from tag to tag."""
    store = Store.open(tmp_path / "store")
    whole: Manifest = mirror_images.put(repository, store, mirror_images.image(store, 1))
    cleared = mirror_images.cleared(whole, tags=("latest",))
    with pytest.raises(ValueError, match="cleared for latest, not for stable"):
        repository.point("stable", cleared, None)
    repository.point("latest", cleared, None)
    assert pullable(repository) == {"latest": whole.digest}
