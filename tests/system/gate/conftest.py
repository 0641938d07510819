"""Images to publish, and an empty mirror of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.foreign_programs import docker_registry
from tests.support.mirror_operator import operator
from tests.support.rpm_factory import Forge
from tests.system.gate.publishable import PublishableImages, other_architecture


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> PublishableImages:
    it = operator(tmp_path_factory.mktemp("images"), made)
    weak = it.products.build("1.0", expected="1", output="weak")
    good = it.products.build("1.0")
    failed = it.products.build("3.0", expected="another")
    assert good.report and good.report.passed and failed.report and not failed.report.passed
    assert weak.image.digest == good.image.digest and weak.evidence != good.evidence
    return PublishableImages(it, good, weak, it.products.build("2.0"), failed, other_architecture(it, good))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def mirrors(host: str, tmp_path: Path) -> dict[str, str]:
    """An empty mirror of each kind, by its address."""
    return {
        "directory": f"dir:{tmp_path}/mirror",
        "registry": f"registry+http://{host}/{tmp_path.name.replace('_', '-')}".lower(),
        "layout": f"oci:{tmp_path}/layout",
    }
