"""What a package may unpack to: the bounds, who states them, and what is said of a package that exceeds one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import BuildError, Problem, VerificationError
from pipeline.model.header import FileFlag, FileRecord, PackageHeader
from pipeline.model.package import Nevra, Package
from pipeline.model.payload_limits import (
    PAYLOAD_RATIO_DEFAULT,
    PAYLOAD_SIZE_DEFAULT,
    RATIO_FLOOR,
    PayloadLimits,
    content_size,
    exceeded_limit,
)
from pipeline.packages import errors_about
from pipeline.prepare.payload_check import check_payload_sizes
from pipeline.recipes import load_platforms, load_recipe
from tests.support.recipe_folder import good, only_problem, write

UNSTATED = PayloadLimits()
BOMB = Package(Nevra("bomb", 0, "1", "1", "noarch"), Digest("1" * 64), 309_000, "base", "bomb.rpm", 5)


@pytest.mark.parametrize(
    ("size", "file_size", "limits", "says"),
    [
        (9_700_000_000, 309_000, UNSTATED, "250 times"),
        (9_700_000_000, 309_000, PayloadLimits(ratio=40_000), ""),
        (9_700_000_000, 309_000, PayloadLimits(size=1 << 30, ratio=40_000), "1073741824 bytes"),
        (4_000_000_000, 140_000_000, UNSTATED, ""),
        (PAYLOAD_SIZE_DEFAULT, 1 << 30, UNSTATED, ""),
        (PAYLOAD_SIZE_DEFAULT + 1, 1 << 30, UNSTATED, "that one package may have"),
        (PAYLOAD_SIZE_DEFAULT + 1, 1 << 30, PayloadLimits(size=1 << 40), ""),
        (RATIO_FLOOR, 1000, UNSTATED, ""),
        (RATIO_FLOOR + 1, 1000, UNSTATED, "250 times"),
        (RATIO_FLOOR + 1, 1000, PayloadLimits(size=10), "10 bytes"),
        (RATIO_FLOOR * PAYLOAD_RATIO_DEFAULT, RATIO_FLOOR, UNSTATED, ""),
    ],
)
def test_a_package_has_bounds_on_size_and_ratio(size: int, file_size: int, limits: PayloadLimits, says: str) -> None:
    told = exceeded_limit(size, file_size, limits)
    assert says in told if says else told == ""


def test_all_that_exceed_a_bound_are_named_with_the_way_out() -> None:
    other = replace(BOMB, nevra=Nevra("other", 0, "1", "1", "noarch"))
    fine = replace(BOMB, nevra=Nevra("fine", 0, "1", "1", "noarch"))
    with pytest.raises(VerificationError) as caught:
        check_payload_sizes([(BOMB, 10**10), (fine, 10**6), (other, 10**10)], UNSTATED)
    first, second = caught.value.problems
    assert (first.code, second.code) == ("payload-too-large",) * 2
    assert first.message.startswith("bomb-1-1.noarch unpacks to 10000000000 bytes")
    assert first.place == "bomb-1-1.noarch of repository 'base'"
    assert "payload-limits: {size: …, ratio: …}" in (first.hint or "") and "other-1-1" in second.message
    check_payload_sizes([(BOMB, 10**10)], PayloadLimits(ratio=100_000))


def test_the_content_of_a_header_counts_hard_links_once_by_the_largest_and_no_ghosts() -> None:
    def file(path: str, size: int, inode: int, mode: int = 0o100644, ghost: bool = False) -> FileRecord:
        flags = FileFlag.GHOST if ghost else FileFlag(0)
        return FileRecord(path, mode, "root", "root", size, 0, None, inode=inode, flags=flags)

    header = PackageHeader(
        Nevra("a", 0, "1", "1", "noarch"),
        Digest("1" * 64),
        (
            file("/a", 100, 1),
            file("/b", 0, 1),
            file("/c", 7, 2),
            file("/ghost", 1000, 3, ghost=True),
            file("/folder", 4096, 4, 0o40755),
            file("/link", 12, 5, 0o120777),
        ),
        (),
        (),
        (),
        (),
        0,
    )
    assert content_size(header) == 107


def test_recipes_and_platforms_state_bounds(tmp_path: Path) -> None:
    assert good(tmp_path).payload_limits == PayloadLimits()
    stated = good(tmp_path, "payload-limits: {size: 64GiB, ratio: 1000}\n").payload_limits
    assert stated == PayloadLimits(64 << 30, 1000)
    assert only_problem(tmp_path, "payload-limits: {ratio: 0}\n").code == "value-out-of-range"
    assert only_problem(tmp_path, "payload-limits: {sizes: 1}\n").code == "key-unknown"
    write(
        tmp_path,
        "name: base\nversion: '1'\nplatform: p\nlayers: [{name: l, packages: [a]}]\n"
        "payload-limits: {size: 1GiB, ratio: 5}\n",
        "base.yaml",
    )
    top = write(tmp_path, "name: top\nversion: '1'\ninclude: [base.yaml]\npayload-limits: {ratio: 9}\n", "top.yaml")
    assert load_recipe(top).payload_limits == PayloadLimits(1 << 30, 9)
    definitions = write(
        tmp_path,
        "platforms:\n"
        "  below: {payload-limits: {size: 2GiB}, repositories: [{id: a, baseurls: ['file:///a'], keys: [k]}]}\n"
        "  above: {extends: below, payload-limits: {ratio: 7}}\n",
        "repositories.yaml",
    )
    assert load_platforms(definitions).find("above", place="").payload_limits == PayloadLimits(2 << 30, 7)


def test_errors_of_a_file_in_the_store_name_the_package(tmp_path: Path) -> None:
    path = tmp_path / ("5" * 64)
    damaged = VerificationError("package-damaged", f"{path.name}: it is cut off", place=str(path), hint="again")
    with pytest.raises(VerificationError) as caught, errors_about(BOMB.nevra, path):
        raise damaged
    assert caught.value.problems == (
        Problem("package-damaged", "bomb-1-1.noarch: it is cut off", "bomb-1-1.noarch", "again"),
    )
    with pytest.raises(BuildError) as unsupported, errors_about(BOMB.nevra, path):
        raise BuildError("payload-unsupported", f"{path.name}: unsupported payload")
    assert str(unsupported.value.problems[0].place) == "bomb-1-1.noarch"
    other = VerificationError("blob-missing", "another thing", place="elsewhere")
    with pytest.raises(VerificationError) as same, errors_about(BOMB.nevra, path):
        raise other
    assert same.value is other
