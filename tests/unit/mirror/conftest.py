"""A new mirror of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.mirror.address_parser import ADDRESS_FORMS
from pipeline.mirror.protocol import Mirror
from tests.support.mirror_kinds import new_mirror


@pytest.fixture(params=ADDRESS_FORMS, ids=lambda form: form.prefix)
def any_mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirror]:
    with new_mirror(request.param, tmp_path) as opened:
        yield opened
