"""A recipe with all that is read for it, loaded as by one process after the other."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.beneath import ReadCache, ReadLog, logged_reads
from pipeline.model.platform import Platform
from pipeline.model.recipe import Recipe
from pipeline.recipes import PlatformTarget, find_platform, load_recipe, loading_documents
from pipeline.store import Store

LOADING: Any = importlib.import_module("pipeline.recipes.document_loading")
"""The module; in the room its function has nearly all of its name."""

TOP = """\
name: top
version: "{{ packages['bash'].version }}"
platform: local
include: [more.yaml, given.yaml]
from: below.yaml
layers: [{name: base, packages: [sed]}]
files: [{template: a.j2, path: /etc/a}]
values: {port: 1, share: 0.5, deep: {list: [1, two]}}
image: {entrypoint: [/usr/bin/bash]}
smoke: {checks: [{name: lists, command: [ls], expect: {stdout: x}}]}
"""
MORE = "platforms: {local: {packages: {sed: [sed]}}, any: {}}\nexclude: [one]\n"
BELOW = 'name: below\nversion: "1"\nplatform: local\nlayers: [{name: low, packages: [bash]}]\n'
DEFINITIONS = """\
platforms:
  local:
    description: for tests
    families: []
    dnf-vars: [vars, none]
    repositories: [{id: own, baseurls: ["file:///own"], keys: [key]}, {file: repos.d/more.repo}]
"""
REPO_FILE = "[more]\nname=more\nbaseurl=file:///more\ngpgkey=file:///key\n"

_CACHES = ("_recipes", "_platforms", "_included")


def load_now(path: Path, target: PlatformTarget, store: Store, *, started: float | None = None) -> None:
    """Load a recipe, its parents and their platform, as a command that has nothing else to do meanwhile."""
    with loading_documents(path, target, store, started=time.time() if started is None else started) as loading:
        loading.finish()


class RecipeDocuments:
    """A folder with a recipe, included ones, a parent, a template, and platforms; and a store beside it."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self._monkeypatch = place, monkeypatch
        self.store = Store.open(place / "store", tell=self._tell)
        self.told: list[str] = []
        for name in ("templates", "repos.d", "vars", "none"):
            self.path(name).mkdir(parents=True)
        texts = {
            "top.yaml": TOP,
            "more.yaml": MORE,
            "given.yaml": "values: {given: 1}\n",
            "below.yaml": BELOW,
            "templates/a.j2": "port {{ port }}\n",
            "repositories.yaml": DEFINITIONS,
            "repos.d/more.repo": REPO_FILE,
            "vars/one": "1",
        }
        for name, text in texts.items():
            self.write(name, text)
        self.forget()

    def _tell(self, text: str) -> None:
        self.told.append(text)

    def path(self, name: str) -> Path:
        return self.place / "recipes" / name

    def write(self, name: str, text: str) -> None:
        self.path(name).write_text(text)

    @property
    def target(self) -> PlatformTarget:
        return PlatformTarget(self.path("repositories.yaml"))

    def forget(self) -> None:
        """Begin as another process would."""
        for name in _CACHES:
            self._monkeypatch.setattr(LOADING, name, ReadCache(8))

    def load(self, *, started: float | None = None) -> tuple[Recipe, Platform, bool]:
        """Load as another process; return recipe, platform and whether they were read."""
        self.forget()
        with self._read_here() as read:
            now = time.time() if started is None else started
            load_now(self.path("top.yaml"), self.target, self.store, started=now)
            recipe, platform = self._loaded()
        return recipe, platform, bool(read)

    def load_beside(
        self, *, forked: bool = True, meanwhile: Callable[[], object] = lambda: None
    ) -> tuple[dict[str, Any], ReadLog, bool]:
        """Load as another process; return what the caches have, the log, and whether this process read it."""
        self.forget()
        with self._read_here() as here:
            path = self.path("top.yaml")
            with loading_documents(path, self.target, self.store, started=time.time(), forked=forked) as loading:
                meanwhile()
                with logged_reads() as log:
                    loading.finish()
            caches = {name: dict(getattr(LOADING, name)._kept) for name in _CACHES}
            read = bool(here)
            self._loaded()
            assert read == bool(here), "the caches have it"
        return caches, log, read

    @contextmanager
    def _read_here(self) -> Iterator[list[Path]]:
        """Yield the recipes that this process reads."""
        read: list[Path] = []
        merge = importlib.import_module("pipeline.recipes.merge")
        real = merge.merge_recipe

        def merged(path: Path, target: PlatformTarget) -> Recipe:
            read.append(path)
            return real(path, target)

        with self._monkeypatch.context() as patched:
            patched.setattr(merge, "merge_recipe", merged)
            yield read

    def _loaded(self) -> tuple[Recipe, Platform]:
        recipe = load_recipe(self.path("top.yaml"), self.target)
        return recipe, find_platform(self.target.definitions, recipe.platform, add_ons=recipe.add_ons)

    def results(self) -> list[Path]:
        return [path for path in (self.store.root / "results").rglob("*") if path.is_file()]
