"""A built image that `relbuild publish` publishes again and again: which publications were recognised."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import publish_run
from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.digest import Digest
from pipeline.model.bill import BuildRecord
from pipeline.oci import write_layout
from pipeline.reports import report_documents, report_folder, write_report
from pipeline.snapshots import program_files
from pipeline.store import Store
from tests.support.bills import AWKWARD
from tests.support.published_images import ImagePublisher
from tests.support.signing_examples import PRIVATE, PROVENANCE_VALUE
from tests.support.tested_images import simple_evidence

LATER = 10.0
"""Seconds from when what stands for a program was written to when it is run: a younger one is not trusted."""

DENIED, REFUSED = 8, 7
"""Exit codes."""

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "REGISTRY_AUTH_FILE")
"""What a person's environment may have, and a publication looks at."""


@dataclass
class RepeatedPublisher:
    """A built image in a folder, which `relbuild publish` publishes to the mirror `to`."""

    folder: Path
    to: str
    ordinary: list[object] = field(default_factory=list)
    """One for each publication that was not recognised."""
    began: Callable[[], object] = lambda: None
    """Called before each publication."""
    age: float = 0.0
    """Seconds for which the program that publishes has been running."""
    program: Path | None = None
    """A folder with `code/` and `library.so` that stand for relbuild and what it has loaded, so that no change of those
    files while tests run is one; without it, they are the real ones."""

    def build(self) -> None:
        """Build the image, once."""
        maker = ImagePublisher.at(self.folder)
        image, store = maker.image("1.0"), maker.store
        write_layout(image, store=store, target=self.layout)
        evidence = simple_evidence(image)
        record = BuildRecord(image.digest, PROVENANCE_VALUE, evidence.checks)
        documents = report_documents(replace(AWKWARD, digest=image.digest, version="1.0"), record, store=store)
        write_report(self.report, {}, documents, report=None, evidence=evidence, image=image, store=store)
        self.key.touch(0o600)
        self.key.write_bytes(PRIVATE)

    @property
    def maker(self) -> ImagePublisher:
        return ImagePublisher(Store.open(self.folder / "store"))

    @property
    def digest(self) -> Digest:
        return self.maker.image("1.0").digest

    @property
    def layout(self) -> Path:
        return self.folder / "small"

    @property
    def report(self) -> Path:
        return report_folder(self.layout)

    @property
    def key(self) -> Path:
        return self.folder / "key"

    def publish(self, *more: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, answer, and the lines for people."""
        self.began()
        import_commands("publish")
        words = ["publish", self.layout, "--to", self.to, "--key", self.key, "--store", self.folder / "store"]
        command = [*map(str, words), "--progress", "none", "--json", *more]
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PYTEST_CURRENT_TEST")  # Another one in a test than in its fixtures.
            # Each is a command of its own: the tests' process began before all that they loaded.
            later = 0.0
            if self.program is not None:
                later = LATER
                patch.setattr(program_files, "CODE", self.program / "code")
                for source in ("loaded_files", "mapped_files", "library_records"):
                    patch.setattr(publish_run, source, lambda: iter([str(self.program / "library.so")]))
            patch.setattr(publish_run, "process_started", lambda now: now + later - self.age)
            done = CliRunner().invoke(app, command)
        published = json.loads(done.stdout).get("published") if done.stdout else None
        return done.exit_code, published[0] if published else {}, done.stderr

    def recognised(self, *more: str) -> bool:
        """Publish; return whether it was recognised."""
        before = len(self.ordinary)
        status, _, said = self.publish(*more)
        assert status == 0, said
        return len(self.ordinary) == before

    def publish_twice(self) -> None:
        """Publish what was never published: the second publication changes nothing, and is remembered."""
        before = len(self.ordinary)
        status, answer, said = self.publish()
        assert (status, len(self.ordinary)) == (0, before + 1) and answer["moved"], said
        assert not self.recognised()

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count ordinary publications within the block."""
        publish = publish_run.run_publish

        def counted(*given: Any, **options: Any) -> Any:
            self.ordinary.append(given)
            return publish(*given, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publish_run, "run_publish", counted)
            yield


@dataclass(frozen=True)
class KeptFolder:
    """A folder that is put back as it was, at its own path."""

    folder: Path
    kept: Path

    @classmethod
    def keep(cls, folder: Path) -> KeptFolder:
        kept = folder.with_name(f"{folder.name} as it was")
        shutil.copytree(folder, kept, symlinks=True)
        return cls(folder, kept)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder, symlinks=True)
