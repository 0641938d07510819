"""Packages are matched in every form in which people and tools write one, above all as `rpm -qa` prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.checks import CheckKind, judge
from pipeline.model.checks.packages_check import PackageFacts, PackagesAnswer, package_forms, package_is
from pipeline.model.image import ImageConfig
from pipeline.model.package import Nevra
from pipeline.model.smoke import Check

EPOCH = "diffutils-1:3.10-4.el9.x86_64"
PLAIN = "bash-5.2-1.x86_64"


@pytest.mark.parametrize(
    "pattern",
    [
        "diffutils",
        "diff*",
        "diffutils.x86_64",
        "diffutils.*",
        "diffutils-3.10",
        "diffutils-1:3.10",
        "diffutils-3.10-4.el9",
        "diffutils-1:3.10-4.el9",
        "diffutils-3.10-4.el9.x86_64",
        "diffutils-1:3.10-4.el9.x86_64",
        "diffutils-3.10*",
        "diffutils-3*",
        "diffutils-1:3.10*",
        "diffutils-*:3.10*",
        "*-3.10-4.el9.x86_64",
        "*.el9.x86_64",
    ],
)
def test_a_package_with_an_epoch_matches_with_and_without_it(pattern: str) -> None:
    assert package_is(EPOCH, pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "diffutils-0:3.10*",
        "diffutils-2:3.10-4.el9.x86_64",
        "diffutils-3.11*",
        "diffutils-3.10-4.el9.aarch64",
        "diffutils.aarch64",
        "diffutils-4.el9",
        "utils",
        "1:3.10",
        "3.10*",
        "",
    ],
)
def test_another_package_does_not(pattern: str) -> None:
    assert not package_is(EPOCH, pattern)


def test_a_package_without_epoch_has_epoch_0() -> None:
    assert package_is(PLAIN, "bash-0:5.2-1.x86_64") and package_is(PLAIN, "bash-5.2*")
    assert not package_is(PLAIN, "bash-1:5.2*")


def test_an_imported_key_and_what_is_no_nevra_match_as_they_are_written() -> None:
    assert package_is("gpg-pubkey-8d2b1a2f-5c0e1e63.", "gpg-pubkey*")
    assert package_is("gpg-pubkey-8d2b1a2f-5c0e1e63.", "gpg-pubkey")
    assert package_is("nonsense", "nonsense") and not package_is("nonsense", "non")


_WORD = st.text("ab1_", min_size=1, max_size=3)


@given(
    st.lists(_WORD, min_size=1, max_size=3).map("-".join),
    st.integers(0, 12),
    st.lists(_WORD, min_size=1, max_size=2).map(".".join),
    st.lists(_WORD, min_size=1, max_size=2).map(".".join),
    st.sampled_from(["noarch", "x86_64"]),
)
def test_every_form_matches_itself_and_is_of_the_packages_own_parts(
    name: str, epoch: int, version: str, release: str, arch: str
) -> None:
    nevra = Nevra(name, epoch, version, release, arch)
    forms = set(package_forms(str(nevra)))
    assert {name, f"{name}.{arch}", str(nevra), f"{name}-{version}-{release}.{arch}"} <= forms
    assert {f"{name}-{epoch}:{version}", f"{name}-{epoch}:{version}-{release}.{arch}"} <= forms
    assert all(package_is(str(nevra), form) for form in forms)


@pytest.mark.parametrize("pattern", ["diffutils-3.10-4.el9.x86_64", "diffutils-3.10*", "diffutils-1:3*"])
def test_the_check_forbids_and_requires_by_the_same_forms(pattern: str) -> None:
    seen = PackagesAnswer(True, (EPOCH, PLAIN))

    def wrong(facts: PackageFacts) -> str:
        return judge(Check("c", CheckKind.PACKAGES, 1, subject=facts), seen, ImageConfig("amd64", 0))

    assert wrong(PackageFacts(absent=(pattern,))) == f"must be absent, but installed: {EPOCH}"
    assert wrong(PackageFacts(present=(pattern,))) == ""
