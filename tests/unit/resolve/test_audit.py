"""Which fixes are missing, which came in, which are too much; and updateinfo.xml, well made and not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError, VerificationError
from pipeline.model.advisory import (
    DAY,
    SEVERITIES,
    Advisory,
    FixedPackage,
    ImagePackage,
    Threshold,
    age_in_days,
    exceeding,
)
from pipeline.model.lifetime import days_left, lifetime_warning
from pipeline.model.package import Nevra
from pipeline.model.published_image import MissingFix
from pipeline.repos import advisories as reading
from pipeline.repos import read_advisories
from pipeline.repos.advisories import parse_issued, read_updateinfo
from pipeline.resolve import (
    fixes_taken,
    missing_fixes,
    read_repository_advisories,
    streams_in_use,
)
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm, write_document
from tests.support.updateinfo import Fixed, Update, updateinfo
from tests.unit.resolve.test_resolve_modules import stream

NOW = int(datetime(2026, 1, 11, tzinfo=UTC).timestamp() * 1000)


def have(*nevras: str) -> list[ImagePackage]:
    return [ImagePackage(Nevra.parse(nevra)) for nevra in nevras]


def advisory(
    name: str, *fixed: FixedPackage, kind: str = "security", severity: str = "important", issued: int = NOW - 10 * DAY
) -> Advisory:
    return Advisory(name, kind, severity, f"{name}'s title", issued, ("CVE-2026-0001",), fixed, "updates")


def told(missing: tuple[MissingFix, ...]) -> list[tuple[str, str, str, str]]:
    return [(fix.advisory, fix.package, fix.has, fix.fixed_in) for fix in missing]


# --- comparing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "fixed", "is_missing"),
    [
        ("1-1", "1-2", True),
        ("1-2", "1-2", False),
        ("1-10", "1-9", False),
        ("2-1", "1:1-1", True),
        ("1:1-1", "2-1", False),
        ("1~rc1-1", "1-1", True),
        ("1-1", "1~rc1-1", False),
        ("1^git1-1", "1-1", False),
        ("1.0.10-1", "1.0.9-1", False),
        ("1-1.el9_2", "1-1.el9_2.1", True),
    ],
)
def test_versions_are_compared_as_rpm_does(has: str, fixed: str, is_missing: bool) -> None:
    packages = have(f"openssl-{has}.x86_64")
    found = missing_fixes(packages, [advisory("A", FixedPackage("openssl", "x86_64", fixed))])
    assert told(found) == ([("A", "openssl", has, fixed)] if is_missing else [])


def test_an_advisory_speaks_of_one_name_and_one_architecture() -> None:
    fixed = [FixedPackage("a", "x86_64", "2-1"), FixedPackage("b", "noarch", "2-1"), FixedPackage("c", "i686", "2-1")]
    packages = have("a-1-1.i686", "b-1-1.noarch", "c-1-1.x86_64", "ab-1-1.x86_64")
    assert told(missing_fixes(packages, [advisory("A", *fixed)])) == [("A", "b", "1-1", "2-1")]


def test_of_several_versions_side_by_side_the_newest_counts() -> None:
    packages = have("kernel-5-1.x86_64", "kernel-6-1.x86_64")
    assert not missing_fixes(packages, [advisory("A", FixedPackage("kernel", "x86_64", "6-1"))])
    assert told(missing_fixes(packages, [advisory("B", FixedPackage("kernel", "x86_64", "7-1"))])) == [
        ("B", "kernel", "6-1", "7-1")
    ]


def test_several_packages_of_an_advisory_and_several_advisories_on_a_package() -> None:
    first = advisory("A", FixedPackage("a", "x86_64", "2-1"), FixedPackage("b", "x86_64", "2-1"))
    second = advisory("B", FixedPackage("a", "x86_64", "3-1"), severity="critical")
    found = missing_fixes(have("a-1-1.x86_64", "b-1-1.x86_64"), [first, second])
    assert told(found) == [("B", "a", "1-1", "3-1"), ("A", "a", "1-1", "2-1"), ("A", "b", "1-1", "2-1")]


def test_what_two_repositories_or_two_collections_say_is_said_once() -> None:
    once = advisory("A", FixedPackage("a", "x86_64", "3-1"), FixedPackage("a", "x86_64", "2-1"))
    found = missing_fixes(have("a-1-1.x86_64"), [once, once])
    assert told(found) == [("A", "a", "1-1", "2-1")]


def test_two_architectures_of_a_package_in_one_version_are_one_missing_fix() -> None:
    fixed = [FixedPackage("a", arch, "2-1") for arch in ("x86_64", "i686")]
    assert len(missing_fixes(have("a-1-1.x86_64", "a-1-1.i686"), [advisory("A", *fixed)])) == 1


def test_only_security_counts_unless_others_are_asked_for() -> None:
    given_ = [
        advisory("B", FixedPackage("a", "x86_64", "2-1"), kind="bugfix", severity="critical"),
        advisory("S", FixedPackage("a", "x86_64", "2-1"), severity="low"),
    ]
    packages = have("a-1-1.x86_64")
    assert [fix.advisory for fix in missing_fixes(packages, given_)] == ["S"]
    every = missing_fixes(packages, given_, kinds=None)
    assert [(fix.advisory, fix.kind) for fix in every] == [("S", "security"), ("B", "bugfix")]
    assert [fix.advisory for fix in exceeding(Threshold("", 0), every, NOW)] == ["S"]


def test_what_is_said_of_a_module_holds_where_its_stream_is_on() -> None:
    of_module = advisory("M", FixedPackage("nodejs", "x86_64", "20.2-1", "nodejs:20"))
    other = advisory("O", FixedPackage("nodejs", "x86_64", "22.1-1", "nodejs:22"))
    packages = have("nodejs-20.1-1.x86_64")
    assert not missing_fixes(packages, [of_module, other])
    assert [fix.advisory for fix in missing_fixes(packages, [of_module, other], streams={"nodejs:20"})] == ["M"]


def test_a_stream_is_on_when_a_package_is_of_one_of_its_builds() -> None:
    streams = {"nodejs:20": {"nodejs-0:20.1-1.x86_64"}, "nodejs:22": {"nodejs-0:22.1-1.x86_64"}, "perl:5": set[str]()}
    assert streams_in_use(have("nodejs-20.1-1.x86_64", "bash-5-1.x86_64"), streams) == {"nodejs:20"}
    assert streams_in_use(have("nodejs-1:20.1-1.x86_64"), streams) == frozenset()


def test_a_fix_came_in_when_it_lies_between_two_images() -> None:
    before, after = have("a-1-1.x86_64", "b-1-1.noarch"), have("a-3-1.x86_64", "b-1-1.noarch", "c-9-1.x86_64")
    given_ = [
        advisory("OLD", FixedPackage("a", "x86_64", "1-1")),
        advisory("LOW", FixedPackage("a", "x86_64", "2-1"), severity="low"),
        advisory("EXACT", FixedPackage("a", "x86_64", "3-1"), severity="critical"),
        advisory("LATER", FixedPackage("a", "x86_64", "4-1")),
        advisory("B", FixedPackage("b", "noarch", "1-1")),
        advisory("NEW", FixedPackage("c", "x86_64", "2-1")),
        advisory("BUG", FixedPackage("a", "x86_64", "3-1"), kind="bugfix"),
        advisory("OFF", FixedPackage("a", "x86_64", "2-1", "m:1")),
    ]
    taken = fixes_taken(before, after, given_)
    assert [(one.advisory, one.package, one.version) for one in taken] == [("EXACT", "a", "3-1"), ("LOW", "a", "3-1")]
    assert taken[0].cves == ("CVE-2026-0001",) and taken[0].severity == "critical"
    assert [one.advisory for one in fixes_taken(before, after, given_, streams={"m:1"})] == ["EXACT", "OFF", "LOW"]


VERSIONS = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 3)).map(
    lambda parts: f"{f'{parts[0]}:' if parts[0] else ''}{parts[1]}-{parts[2]}"
)


@given(st.lists(st.tuples(st.sampled_from("abc"), VERSIONS), max_size=12), st.lists(VERSIONS, min_size=6, max_size=6))
def test_what_was_missing_came_in_or_is_missing_still(fixed: list[tuple[str, str]], versions: list[str]) -> None:
    before = have(*(f"{name}-{evr}.x86_64" for name, evr in zip("abc", versions[:3], strict=True)))
    after = have(*(f"{name}-{evr}.x86_64" for name, evr in zip("abc", versions[3:], strict=True)))
    given_ = [advisory(f"A{number}", FixedPackage(name, "x86_64", evr)) for number, (name, evr) in enumerate(fixed)]
    was, still = ({fix.advisory for fix in missing_fixes(one, given_)} for one in (before, after))
    taken = {fix.advisory for fix in fixes_taken(before, after, given_)}
    assert taken == was - still


# --- thresholds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "severity", "days"),
    [
        ("important:7", "important", 7),
        (" Critical ", "critical", 0),
        ("none", "", 0),
        ("none:30", "", 30),
        ("low:0", "low", 0),
    ],
)
def test_a_threshold_is_a_severity_and_an_age(text: str, severity: str, days: int) -> None:
    threshold = Threshold.parse(text)
    assert (threshold.severity, threshold.days) == (severity, days)
    assert Threshold.parse(str(threshold)) == threshold


@pytest.mark.parametrize(
    "text", ["", ":", ":7", "important:", "important:-1", "important:7d", "importent:7", "high", "7"]
)
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Threshold.parse(text)
    assert caught.value.code == "threshold-malformed"


def test_from_a_severity_and_an_age_on_it_is_too_much() -> None:
    fixes = {
        severity or "none": missing_fixes(
            have("a-1-1.x86_64"), [advisory(severity or "none", FixedPackage("a", "x86_64", "2-1"), severity=severity)]
        )[0]
        for severity in SEVERITIES
    }

    def beyond(text: str, now: int = NOW) -> list[str]:
        return [fix.advisory for fix in exceeding(Threshold.parse(text), fixes.values(), now)]

    assert beyond("important:7") == ["critical", "important"]
    assert beyond("none") == ["critical", "important", "moderate", "low", "none"]
    assert beyond("critical:10") == ["critical"] and beyond("critical:11") == []
    assert beyond("critical:10", NOW - 1) == []


def test_what_has_no_date_counts_as_old_and_what_is_of_the_future_as_new() -> None:
    undated, future = (
        advisory(n, FixedPackage("a", "x86_64", "2-1"), issued=i) for n, i in (("U", 0), ("F", NOW + DAY))
    )
    found = missing_fixes(have("a-1-1.x86_64"), [undated, future])
    assert [fix.advisory for fix in exceeding(Threshold.parse("low:30"), found, NOW)] == ["U"]
    assert (age_in_days(0, NOW), age_in_days(NOW + DAY, NOW), age_in_days(NOW - 3 * DAY + 1, NOW)) == (None, 0, 2)


# --- how long it is kept up ------------------------------------------------------------------------------


def test_the_end_of_life_is_told_when_it_is_near_or_has_passed() -> None:
    assert days_left("2026-01-11", NOW) == 0 and days_left("2026-01-12", NOW) == 1
    assert lifetime_warning("", NOW) == "" and lifetime_warning("2026-04-12", NOW) == ""
    assert lifetime_warning("2026-04-11", NOW) == "the image is close to its end of life: 2026-04-11, in 90 days"
    assert lifetime_warning("2026-01-11", NOW) == "the image is close to its end of life: 2026-01-11, in 0 days"
    assert lifetime_warning("2026-01-10", NOW) == "the image is past its end of life: 2026-01-10, 1 day ago"


# --- reading ---------------------------------------------------------------------------------------------


def written(folder: Path, data: bytes) -> Path:
    path = folder / "updateinfo.xml"
    path.write_bytes(data)
    return path


def test_an_advisory_is_read_with_all_that_is_wanted_of_it(tmp_path: Path) -> None:
    document = updateinfo(
        Update(
            "RLSA-2026:1",
            (Fixed("a", "1:2~rc1-3.el9"), Fixed("a", "1:2~rc1-3.el9", "src"), Fixed("m", "1-1", "noarch", "mod:1.0")),
            title="Important: a\n  security   update for CVE-2026-0003",
            cves=("CVE-2026-0002", "cve-2026-0001"),
            more='<reference type="bugzilla" id="9" title="CVE-2026-99999 a: it leaks"/>',
        ),
        Update("B", kind="bugfix", severity=None, issued="1700000000"),
    )
    found = read_updateinfo(written(tmp_path, document), "updates")
    assert found.notes == () and found.heard == ("updates",)
    assert found.given[0] == Advisory(
        "RLSA-2026:1",
        "security",
        "important",
        "Important: a security update for CVE-2026-0003",
        1_767_225_600_000,
        ("CVE-2026-0001", "CVE-2026-0002", "CVE-2026-0003", "CVE-2026-99999"),
        (FixedPackage("a", "x86_64", "1:2~rc1-3.el9"), FixedPackage("m", "noarch", "1-1", "mod:1.0")),
        "updates",
    )
    assert (found.given[1].kind, found.given[1].severity, found.given[1].issued) == ("bugfix", "", 1_700_000_000_000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1_700_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000),
        ("2023-11-14 22:13:20 UTC", 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000),
        ("2023-11-14", 1_699_920_000),
        ("1969-12-31", 0),
        ("yesterday", 0),
        ("", 0),
        ("2023-13-41 00:00:00", 0),
        ("9" * 40, 0),
        ("0001-01-01T00:00:00+23:59", 0),
    ],
)
def test_dates_are_seconds_or_days(text: str, seconds: int) -> None:
    assert parse_issued(text) == seconds * 1000


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        ("Critical", "critical"),
        ("urgent", "critical"),
        ("High", "important"),
        ("medium", "moderate"),
        ("not yet assigned", ""),
        ("unimportant", "low"),
        ("None", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_words_of_distributions_are_known(tmp_path: Path, word: str | None, severity: str) -> None:
    found = read_updateinfo(written(tmp_path, updateinfo(Update("A", severity=word))), "r")
    assert found.given[0].severity == severity and found.notes == ()


def test_what_is_odd_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    document = updateinfo(
        Update("WORD", (Fixed("a", "2-1"),), severity="Catastrophic"),
        Update("DATE", (Fixed("a", "2-1"),), issued="soon"),
        Update("", (Fixed("a", "2-1"),)),
        Update("NAMELESS", (Fixed("", "2-1"), Fixed("b", "2-1"))),
        *(Update(f"D{number}", issued="") for number in range(9)),
    )
    found = read_updateinfo(written(tmp_path, document), "r")
    assert [one.id for one in found.given][:3] == ["WORD", "DATE", "NAMELESS"]
    assert [one.name for one in found.given[2].packages] == ["b"]
    assert found.notes == (
        "repository r: advisories with an unreadable date, treated as old: DATE, D0, D1, D2, D3 and 5 more",
        "repository r: advisories with an unknown severity, treated as none: WORD ('catastrophic')",
        "repository r: advisories with packages without name, version, release or architecture, ignored: NAMELESS",
        "repository r: advisories without an id, ignored: 1",
    )
    missing = missing_fixes(have("a-1-1.x86_64"), found.given)
    assert [fix.advisory for fix in exceeding(Threshold("important", 30), missing, NOW)] == ["DATE"]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE updates [<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;">]><updates><update type="security"><id>&c;</id></update></updates>"""


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (BOMB, "document type"),
        (b'<!DOCTYPE u SYSTEM "file:///etc/passwd"><updates/>', "document type"),
        (b"<updates><update>", "not well-formed"),
        (b"", "not well-formed"),
        (b"\x00\x01", "not well-formed"),
        (b"<metadata/>", "not <updates>"),
        (b"<updates>" * 100, "deep"),
        (updateinfo(Update("x" * 5000)), "'id' has more than"),
        (updateinfo(Update("A", severity="x" * 5000)), "'severity' has more than"),
        (updateinfo(Update("A", cves=tuple(f"CVE-2026-{n:06}" for n in range(1001)))), "CVEs"),
    ],
)
def test_what_is_no_updateinfo_is_refused(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(VerificationError) as caught:
        read_updateinfo(written(tmp_path, data), "r")
    assert (
        caught.value.code == "metadata-malformed" and what in str(caught.value) and "repository r" in str(caught.value)
    )


def test_there_are_bounds_on_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, updateinfo(*(Update(f"A{n}", (Fixed("a", "1-1"), Fixed("b", "1-1"))) for n in range(4))))
    for name, limit in (("ADVISORIES_MOST", 3), ("ADVISED_PACKAGES_MOST", 7), ("UPDATEINFO_LIMIT", 100)):
        with monkeypatch.context() as patched:
            patched.setattr(reading, name, limit)
            with pytest.raises(VerificationError, match="more than"):
                read_updateinfo(path, "r")
    assert len(read_updateinfo(path, "r").given) == 4


def test_a_long_title_is_cut(tmp_path: Path) -> None:
    found = read_updateinfo(written(tmp_path, updateinfo(Update("A", title="x" * 100_000))), "r")
    assert len(found.given[0].title) == 4096


# --- of repositories -------------------------------------------------------------------------------------


def add_updateinfo(folder: Path, data: bytes) -> None:
    """Name an updateinfo in a repository's repomd.xml."""
    record = write_document(folder, "updateinfo", data)
    path = folder / "repodata" / "repomd.xml"
    path.write_text(path.read_text().replace("</repomd>", f"{record}</repomd>"))


def test_a_platform_is_read_once_and_who_is_silent_is_known(tmp_path: Path) -> None:
    world = World(tmp_path)
    modules = stream("nodejs", "20", "nodejs-0:20.1-1.x86_64")
    world.add("base", Rpm("a", "1-1"), Rpm("nodejs", "20.1-1", "x86_64"), modules=modules)
    world.add("updates", Rpm("a", "2-1"), Rpm("a", "1:0-1"))
    add_updateinfo(tmp_path / "updates", updateinfo(Update("A", (Fixed("a", "2-1", "noarch"),))))
    opened = world.opened()
    bulletin = read_repository_advisories(opened, "x86_64", store=world.store)
    assert bulletin.advisories == read_advisories(opened, store=world.store)
    assert (bulletin.advisories.heard, bulletin.advisories.silent) == (("updates",), ("base",))
    assert bulletin.newest[("a", "noarch")] == "1:0-1" and ("b", "noarch") not in bulletin.newest
    assert bulletin.streams == {"nodejs:20": {"nodejs-0:20.1-1.x86_64"}}
    assert [fix.repository for fix in missing_fixes(have("a-1-1.noarch"), bulletin.advisories.given)] == ["updates"]


def test_an_updateinfo_that_is_not_what_repomd_promises_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", Rpm("a"))
    add_updateinfo(tmp_path / "r", updateinfo(Update("A")))
    (document,) = (tmp_path / "r" / "repodata").glob("*-updateinfo.xml.gz")
    document.write_bytes(document.read_bytes()[:-1] + b"\x01")
    with pytest.raises(VerificationError):
        read_advisories(world.opened(), store=world.store)
