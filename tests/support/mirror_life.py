"""A mirror that is lived with: published to, promoted on, rolled back, pruned and pulled from at the same time."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.build import BuildResult
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.tag_check import check_tag
from pipeline.mirror.tag_history import read_history
from pipeline.mirror.tag_memory import _memory
from pipeline.model.publication import PastMove
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access
from pipeline.store import seen_record
from tests.support.foreign_programs import docker_registry
from tests.support.killed_publisher import Outcome, Publisher, Task, publisher, signer
from tests.support.pulling import PAUSE, REST, Found, Puller, pulling
from tests.support.webserver import nginx

IMAGES = 12
TAGS = ("latest", "stable", "edge")
SMALL = "small"


@dataclass(frozen=True, slots=True)
class Site:
    """A mirror that is served. `to`: how relbuild names it; `host` and `name`: where people find its one repository;
    `data`: all that it holds."""

    kind: str
    to: str
    host: str
    name: str
    data: Path
    build_env: BuildEnvironment

    @property
    def reference(self) -> str:
        """The repository."""
        return f"{self.to}/{SMALL}"

    def puller(self, *signers: int) -> Puller:
        """A client that wants what is there to be signed with these keys."""
        return Puller(self.host, self.name, [signer(number).public.pem for number in signers or (0,)])

    def begun(self) -> bool:
        """Is there a mirror at all?"""
        return self.kind == "registry" or (self.data / "relbuild-mirror.json").exists()

    @contextlib.contextmanager
    def repository(self) -> Iterator[Repository]:
        """The repository, opened to be looked at."""
        with mirror_access(self.build_env).repository(parse_address(self.reference)) as opened:
            yield opened

    def restore(self, saved: Path | None) -> None:
        """Everything as in `saved`, which nobody has seen move on since; None: nothing."""
        if self.begun():
            with self.repository() as repository:
                for tag in TAGS:
                    seen = _memory(repository.url, tag, signer(0).public.fingerprint)
                    seen_record(self.build_env.store, seen).unlink(missing_ok=True)
        if self.data.exists():
            shutil.rmtree(self.data)
        if saved is not None:
            shutil.copytree(saved, self.data, symlinks=True)

    def save(self, saved: Path) -> Path:
        """Everything into a new folder."""
        return Path(shutil.copytree(self.data, saved, symlinks=True))


@contextlib.contextmanager
def served(kind: str, folder: Path, build_env: BuildEnvironment) -> Iterator[Site]:
    """A mirror behind nginx, or a docker-registry; with nothing in it yet."""
    folder.mkdir()
    if kind == "directory":
        mirror = folder / "mirror"
        with nginx(mirror, folder / "nginx") as host:
            yield Site(kind, f"dir:{mirror}", host, SMALL, mirror, build_env)
    else:
        with docker_registry(folder / "registry") as host:
            data = folder / "registry" / "data"
            yield Site(kind, f"registry+http://{host}/ns", host, f"ns/{SMALL}", data, build_env)


def publication(site: Site, image: BuildResult, *tags: str, number: int = 0) -> Task:
    return Task("publish", str(image.layout), site.to, tags, signer=number)


def drawn(dice: random.Random, site: Site, images: list[BuildResult]) -> Task:
    """Something that happens to a mirror."""
    tag = dice.choice(TAGS)
    match dice.choices(("publish", "promote", "rollback", "prune"), (50, 18, 24, 8))[0]:
        case "publish":
            return publication(site, dice.choice(images), *dice.sample(TAGS, dice.randint(1, len(TAGS))))
        case "promote":
            return Task("promote", f"{site.reference}:{tag}", dice.choice([one for one in TAGS if one != tag]))
        case "rollback":
            return Task("rollback", f"{site.reference}:{tag}")
        case _:
            return Task("prune", site.to)


_GONE = {f"{what}-missing" for what in ("reference", "manifest", "blob", "signature", "attestation", "referrer")}


_CANNOT = {"rollback": {"history-empty", *_GONE}}
"""What may be refused: rolling back where there is nothing to go back to, or to what is pruned, if only just now."""


@dataclass(slots=True)
class Life:
    """What a mirror went through. `done`: operations by kind; `found`: what each client found; `wrong`: operations that
    did not end as they may."""

    done: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextlib.contextmanager
def pruned_meanwhile(site: Site, home: Path, life: Life) -> Iterator[None]:
    """Prune, again and again, in a process of its own for as long as the block lasts."""
    ended = threading.Event()

    def prune_on() -> None:
        with publisher(site.build_env, home) as operator:
            outcome = Outcome()
            while not ended.wait(max(PAUSE, REST * outcome.seconds)):
                outcome = operator.do(Task("prune", site.to))
                life.done["prune beside"] += 1
                if outcome.code:
                    life.wrong.append(f"prune beside: {outcome}")

    with ThreadPoolExecutor(1) as pool:
        keeping = pool.submit(prune_on)
        try:
            yield
        finally:
            ended.set()
            keeping.result()


def lived(site: Site, images: list[BuildResult], count: int, seed: int, home: Path, *, publishers: int = 1) -> Life:
    """Do `count` operations while clients pull and, on a directory, a pruner prunes.

    Each of the `publishers`, processes of their own, takes the next operation as soon as it is done with its last.
    """
    dice = random.Random(f"{seed} {site.kind}")
    life = Life()
    prune = Task("prune", site.to)
    tasks = iter([prune if number % 20 == 19 else drawn(dice, site, images) for number in range(count)])
    key, taking = signer(0).public.pem, threading.Lock()

    def work(worker: Publisher) -> None:
        while True:
            with taking:
                task = next(tasks, None)
            if task is None:
                return
            outcome = worker.do(task)
            with taking:
                life.done[f"{task.do} refused" if outcome.code else task.do] += 1
            if outcome.code not in {"", *_CANNOT.get(task.do, ())}:
                life.wrong.append(f"seed {seed}: {task} {outcome}")

    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(publisher(site.build_env, home)) for _ in range(publishers)]
        assert not workers[0].do(publication(site, images[0], *TAGS)).code
        loops = [
            stack.enter_context(pulling(kind, site.host, site.name, TAGS, key)) for kind in ("http", "http", "skopeo")
        ]
        if site.kind == "directory":  # where a lock keeps the two apart
            stack.enter_context(pruned_meanwhile(site, home, life))
        with ThreadPoolExecutor(publishers) as pool:
            list(pool.map(work, workers))
        stack.close()
        for loop in loops:
            life.found += loop
    return life


def history_of(site: Site, tag: str) -> tuple[PastMove, ...]:
    with site.repository() as repository:
        return read_history(repository, tag)


def believed(site: Site) -> None:
    """Every tag is where its newest signed move says, or allows while that is under way."""
    if not site.begun():
        return
    key = signer(0).public
    with site.repository() as repository:
        for tag in (tag for tag in repository.tags() if not is_auxiliary(tag) and "-" not in tag):
            digest = repository.resolve(tag)
            assert digest is not None
            check_tag(repository, tag, digest, key, (repository.identity,), now=int(time.time() * 1000))


def whole_by_every_tag(site: Site) -> None:
    """Whatever tag there is to pull by, it names a complete signed image."""
    if not site.begun():
        return
    with site.repository() as repository:
        tags = [tag for tag in repository.tags() if not is_auxiliary(tag)]
    puller = site.puller()
    seen: set[str] = set()
    for tag in tags:
        digest = puller.digest(tag)
        if digest not in seen:
            assert puller.pull(tag) == digest
            seen.add(digest)
