"""Packages that unpack to far more than they are, and headers that do not say so."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from pipeline.build import lock
from pipeline.errors import VerificationError
from pipeline.packages import read_payload
from pipeline.packages.rpm_file_layout import read_rpm_layout
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.product_builds import signed_repository
from tests.support.rpm_factory import Forge

SIZE = 80 << 20
RECIPE = "name: bomb\nversion: '1'\nplatform: small\nlayers: [{name: base, packages: [bomb]}]\n"


@pytest.fixture(scope="module")
def bomb(made: Forge) -> Path:
    """80 MiB of zeros in some kilobytes."""
    package = made.package("bomb", install=f"truncate -s {SIZE} it", files=["/it"], payload="w3.zstdio")
    assert package.stat().st_size < 1 << 20
    return package


def test_a_package_that_unpacks_to_hundreds_of_times_its_size_is_refused_before_it_is_opened(
    made: Forge, bomb: Path, tmp_path: Path
) -> None:
    (tmp_path / "repositories.yaml").write_text(signed_repository(tmp_path, made.key, bomb))
    recipe = tmp_path / "bomb.yaml"
    recipe.write_text(RECIPE)
    (tmp_path / "store").mkdir(mode=0o700)
    env = BuildEnvironment(Store.open(tmp_path / "store"), QUIET, {"HOME": str(tmp_path)}, time.time)
    options = BuildOptions(recipe, tmp_path / "repositories.yaml", output=tmp_path / "output")
    with pytest.raises(VerificationError, match="unpacks to 83886080 bytes") as caught:
        lock(options, env)
    assert caught.value.code == "payload-too-large" and not recipe.with_suffix(".lock").exists()
    recipe.write_text(RECIPE + "payload-limits: {ratio: 1000000}\n")
    assert lock(options, env).section.resolution.order == ("bomb-1-1.noarch",)


def test_a_header_that_says_less_than_its_payload_has_is_refused_when_the_first_byte_too_many_comes(
    made: Forge, bomb: Path, tmp_path: Path
) -> None:
    """As if a key that is trusted had signed it: the header of a small file and the payload of a large one."""
    small = made.package("small", install="echo 1 >it", files=["/it"], payload="w3.zstdio")
    lying = tmp_path / "lying.rpm"
    head = small.read_bytes()[: read_rpm_layout(small).payload]
    lying.write_bytes(head + bomb.read_bytes()[read_rpm_layout(bomb).payload :])
    with pytest.raises(VerificationError, match="more bytes than its header says") as caught:
        list(read_payload(lying))
    assert caught.value.code == "package-damaged"
    # Zeros where the archive's end should be are not waited for either.
    padded = tmp_path / "padded.rpm"
    zeros = subprocess.run(["zstd", "-q", "-c", "-3"], input=b"\0" * (8 << 20), capture_output=True, check=True).stdout
    padded.write_bytes(head + zeros)
    with pytest.raises(VerificationError, match="payload"):
        list(read_payload(padded))
