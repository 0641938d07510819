"""A product whose publisher's key was changed: two versions by the old key, in a directory and in a registry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.protocol import Repository
from pipeline.release import promote
from tests.support.moved_tags import opened
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import fake_registry

OLD, NEW, STRANGER = key(0), key(1), key(2)
FORMER = (OLD.public,)
BOTH = replace(NEW.public, former=FORMER)
"""What is trusted while keys are changed."""


@contextlib.contextmanager
def published_with_old_key(kind: str, folder: Path, maker: ImagePublisher) -> Iterator[Repository]:
    """1.0 and 1.1 by the old key, `latest` and `stable` at 1.1. `kind`: "directory" or "registry"."""
    with fake_registry() as registry, open_mirror(registry) as there:
        found = there.repository("small") if kind == "registry" else opened(folder / "mirror", maker)
        for version in ("1.0", "1.1"):
            maker.publish(found, maker.image(version), tags=("latest",), signer=OLD)
        promote(parse_address(f"{found.url}:latest"), "stable", OLD, RULES, maker.build_env)
        yield found
