"""What a night over a small catalogue answered, published and wrote."""

from __future__ import annotations

import html
import json
import re
import time
from typing import Any

from pipeline.digest import Digest
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.attestations import find_attested
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.mirror.protocol import is_auxiliary
from pipeline.oci import VerifyingKey, load_verifying_key
from pipeline.progress import QUIET
from tests.support.catalogue import SmallCatalogue


def outcomes(night: Any) -> dict[str, str]:
    return {product["name"]: product["outcome"] for product in night["products"]}


def product(night: Any, name: str) -> Any:
    return next(one for one in night["products"] if one["name"] == name)


def tags(small: SmallCatalogue) -> dict[str, str]:
    """Every tag of the mirror that people pull by, and what it points to."""
    folder = small.mirror / "repositories"
    return {
        str(path.relative_to(folder)): str(path.readlink())
        for path in folder.rglob("_tags/*")
        if path.is_symlink() and not is_auxiliary(path.name)
    }


def attested(small: SmallCatalogue, name: str, image: Digest, kind: str) -> list[Any]:
    """What is attested of an image, decoded."""
    access = MirrorAccess({}, QUIET, time.time)
    with access.repository(parse_address(f"dir:{small.mirror}/{name}")) as repository:
        good, bad = find_attested(repository, image, kind, public_key(small))
        assert not bad
        return [json.loads(one.statement.predicate) for one in good]


def text_of(small: SmallCatalogue, name: str = "") -> str:
    """What a page of the night says, without its markup."""
    page = (small.mirror / "nightly" / name / "index.html").read_text()
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def public_key(small: SmallCatalogue) -> VerifyingKey:
    return load_verifying_key(small.folder / "night.pub", None, progress=QUIET)
