"""Nights over a catalogue in a folder of which only the planning is real: the rest is stood in for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.digest import Digest
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.image_tags import immutable_tag
from pipeline.model.absolute_path import absolute
from pipeline.model.lock import Lock, LockSection
from pipeline.model.night_record import Product
from pipeline.nightly import night_planner, platform_state
from pipeline.nightly.catalogue import load_catalogue
from pipeline.nightly.inputs import templates_digest
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct, remember_published
from pipeline.nightly.job import Job, RunSettings
from pipeline.nightly.night_planner import Decision, Planner
from pipeline.nightly.published_products import PublishedProducts
from pipeline.recipes import PlatformTarget
from pipeline.resolve import format_lock
from pipeline.store import Store
from tests.support.builds import build_env, package, section, ticking
from tests.support.journal import Journal, Told

PLATFORMS = """\
platforms:
  el9: {architectures: [x86_64], repositories: [{id: base, baseurls: [file:///nowhere], keys: [/key]}]}
"""
RECIPE = """\
name: %s
version: '1'
platform: el9
architectures: [x86_64]
layers: [{name: base, packages: [a]}]
files: [{template: page.j2, path: /page}, {source: notes.txt, path: /notes}]
image: {entrypoint: [/a]}
smoke: {checks: [{name: log, log: ready}]}
"""
CHILD = "name: child\nversion: '1'\nfrom: base\nlayers: [{name: top, packages: [b]}]\n"
PAGE = "page.j2"


@dataclass
class Tags:
    """A mirror of which only tags are known."""

    tags: dict[tuple[str, str], Digest] = field(default_factory=dict)
    name: str = ""
    identity: str = "example.invalid/it"
    url: str = "fake:"

    def repository(self, name: str) -> Tags:
        return replace(self, name=name)

    def resolve(self, tag: str) -> Digest | None:
        return self.tags.get((self.name, tag))


class Nights:
    """A catalogue, what its repositories offer, a mirror, and nights that follow one another."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder, self.journal = folder, journal
        self.store = Store.open(folder / "store")
        self.mirror: Tags | None = Tags()
        self.progress = Told()
        self.state, self.packages, self.runtime = b"monday", ("a-1-1.noarch",), "runc 1.1"
        self.accounts: tuple[tuple[str, str, int], ...] = ()
        self.previous: dict[str, Product] = {}
        self.fault: Exception | None = None
        self.looked_for: tuple[str, ...] = (PAGE,)
        (folder / "recipes").mkdir()
        self.write("repositories.yaml", PLATFORMS)
        self.write("base.yaml", RECIPE % "base")
        self.write(PAGE, "a page")
        self.write("notes.txt", "notes")
        journal.stand_in(platform_state, platform_state.load_keys, gives=())
        journal.stand_in(platform_state, platform_state.open_repositories, self._open)
        journal.stand_in(platform_state, platform_state.open_pool, gives="pool")
        journal.stand_in(night_planner, night_planner.solve, self._solve)
        journal.stand_in(night_planner, night_planner.find_runtime, lambda name: self.runtime)

    def write(self, name: str, text: str) -> None:
        (self.folder / "recipes" / name).write_text(text)

    def change(self, name: str, before: str, after: str) -> None:
        """Change a text in one of the catalogue's files."""
        path = self.folder / "recipes" / name
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    def _open(self, platform: Any, arch: str, **more: Any) -> tuple[Any, ...]:
        if self.fault:
            raise self.fault
        return (SimpleNamespace(repository=SimpleNamespace(id="base"), repomd=Digest.of(self.state)),)

    def _solve(self, recipe: Any, *given: Any, inputs: Any, **more: Any) -> LockSection:
        return section(*map(package, self.packages), inputs=tuple(inputs), accounts=self.accounts)

    def planner(self, **more: Any) -> Planner:
        """The planner of a new night."""
        self.journal.calls.clear()
        given: dict[str, Any] = {"key": None, **more}
        settings = RunSettings(
            repositories=absolute(self.folder / "recipes" / "repositories.yaml"),
            to=parse_address(f"dir:{self.folder}/mirror"),
            store=absolute(self.folder / "store"),
            output=absolute(self.folder / "output"),
            environment={},
            clock=ticking(),
            **given,
        )
        here = build_env(self.folder, store=self.store, progress=self.progress)
        mirror: Any = self.mirror
        target = PlatformTarget(settings.repositories, settings.platform)
        published = PublishedProducts(settings, here, mirror, self.previous)
        return Planner(load_catalogue([self.folder / "recipes"], target), settings, here, published)

    def decide(self, name: str = "base", planner: Planner | None = None, **more: Any) -> Decision:
        """What a night decides about one product, whose parent stands as it was published."""
        planner = planner or self.planner(**more)
        entry = planner.catalogue.find(name)
        assert entry is not None
        locks: dict[str, str] = {}
        parent = None
        for one in reversed(tuple(planner.catalogue.below(name))):
            decision = planner.decide(one, planner.plan(one), parent, locks)
            parent = decision.product
            locks[one.name] = (
                decision.on_mirror.record.lock if decision.on_mirror else dict(decision.job.locks)[one.name]
            )  # type: ignore[union-attr]
        return planner.decide(entry, planner.plan(entry), parent, locks)

    def publish(
        self, name: str = "base", digest: Digest | None = None, *, tags: tuple[str, ...] = (), **more: Any
    ) -> PublishedProduct:
        """Do what was decided: the product stands on the mirror, and the store remembers it."""
        job = self.decide(name, **more).job
        assert job is not None
        return self.settle(job, digest or Digest.of(name.encode()), tags=tags)

    def settle(self, job: Job, digest: Digest, lock: str = "", *, tags: tuple[str, ...] = ()) -> PublishedProduct:
        entry = load_catalogue([self.folder / "recipes"]).find(job.product.name)
        assert entry is not None and entry.recipe is not None
        names = self.looked_for if entry.recipe.files else ()
        facts = {**dict(job.facts), "templates": templates_digest(entry.recipe, names)}
        text = lock or dict(job.locks).get(job.product.name, "") or self.lock()
        immutable = immutable_tag("1", 1_700_000_000, digest)
        on_mirror = PublishedProduct(InputsRecord(tuple(sorted(facts.items())), names, text), digest, immutable)
        published = replace(job.product.published, digest=digest, immutable=immutable, tags=tags)
        product = replace(job.product, published=published)
        remember_published(self.store, str(job.settings.to), product, replace(on_mirror, product=product))
        assert self.mirror is not None
        self.mirror.tags.update({(job.product.name, tag): digest for tag in (immutable, *tags)})
        return on_mirror

    def lock(self, **more: Any) -> str:
        """A lock of what is offered now, as text."""
        return format_lock(Lock("base", (section(*map(package, self.packages), **more),)))

    @property
    def resolved(self) -> int:
        return len(self.journal.of(night_planner.solve))
