"""A night for other programs: JUnit, Atom, Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID
from xml.etree import ElementTree

import pytest

from pipeline.model.night_record import (
    Failure,
    NightlyRun,
    Outcome,
    Product,
    ProductRun,
    Stage,
)
from pipeline.model.published_image import CheckFigure
from pipeline.site import atom_xml, junit_xml, summary_markdown, write_site
from pipeline.site.feed import FEED_ENTRIES_LIMIT
from pipeline.site.product_status import headline
from pipeline.site.site_history import NightSummary, summarize_night
from tests.support import nightly_examples
from tests.support.nightly_examples import DAY, HOSTILE

LAST = nightly_examples.nights(6)[-1]
ATOM = "{http://www.w3.org/2005/Atom}"


# --- JUnit ----------------------------------------------------------------------------------------------

_ORDER = ("properties", "testcase", "system-out", "system-err")
"""Elements of a suite, in the order of the schemas of Ant and of Jenkins."""
_SUITE = {"name", "id", "package", "hostname", "timestamp", "tests", "failures", "errors", "skipped", "time"}


def check_junit(data: bytes) -> ElementTree.Element:
    """Holds a document against what the schemas have in common, and its counts against its cases."""
    root = ElementTree.fromstring(data)
    assert root.tag == "testsuites" and set(root.attrib) == {"name", "tests", "failures", "errors", "time"}
    totals = dict.fromkeys(("tests", "failures", "errors"), 0)
    for suite in root:
        assert suite.tag == "testsuite" and set(suite.attrib) == _SUITE
        tags = [child.tag for child in suite]
        assert tags == sorted(tags, key=_ORDER.index) and tags.count("properties") == 1
        datetime.strptime(suite.attrib["timestamp"], "%Y-%m-%dT%H:%M:%S")
        assert all(set(one.attrib) == {"name", "value"} for one in suite.iter("property"))
        cases = suite.findall("testcase")
        names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
        assert len(set(names)) == len(names)
        for case in cases:
            assert set(case.attrib) == {"classname", "name", "time"} and float(case.attrib["time"]) >= 0
            assert len(case) <= 1 and all(child.tag in ("failure", "error", "skipped") for child in case)
            assert all("type" in child.attrib for child in case if child.tag != "skipped")
        counts = {
            "tests": len(cases),
            "failures": len(suite.findall("testcase/failure")),
            "errors": len(suite.findall("testcase/error")),
            "skipped": len(suite.findall("testcase/skipped")),
        }
        assert {key: int(suite.attrib[key]) for key in counts} == counts
        for key in totals:
            totals[key] += counts[key]
    assert {key: int(root.attrib[key]) for key in totals} == totals
    return root


def suite_of(**changes: object) -> ElementTree.Element:
    """The suite of one product."""
    product: Product = nightly_examples.changed(LAST.products[0], **changes)
    return check_junit(junit_xml(replace(LAST, products=(product,), threshold="", repositories=())))[0]


def test_a_night_as_junit_has_a_suite_for_each_product() -> None:
    root = check_junit(junit_xml(LAST))
    *suites, own = root
    assert len(suites) == len(LAST.products)
    failed = [int(suite.attrib["errors"]) + int(suite.attrib["failures"]) for suite in suites]
    assert sum(map(bool, failed)) == LAST.count(Outcome.FAILED) == 2
    assert own.attrib["name"] == "night" and len(own.findall("testcase")) == len(LAST.repositories) + 1
    assert (own.attrib["errors"], own.attrib["failures"]) == ("1", "1")
    assert len(root.findall("testsuite/testcase/skipped")) == LAST.count(Outcome.BLOCKED)
    said = root.findall("testsuite/testcase/error")[0]
    assert said.attrib["message"].startswith("the check 'answers a query'") and "<script>" in said.attrib["message"]


def test_checks_that_did_not_pass_are_failures_and_tell_the_smoke_tests() -> None:
    checks = (
        CheckFigure("default", "answers", True, 12),
        CheckFigure("default", "keeps", False, 30, f"first line\n{HOSTILE}"),
        CheckFigure("default", "ends", False, 1, " "),
    )
    failure = Failure(Stage.SMOKE, "check-failed", "two checks did not pass", log=("one", "two"))
    suite = suite_of(outcome=Outcome.FAILED, failure=failure, checks=checks)
    assert (suite.attrib["failures"], suite.attrib["errors"], suite.attrib["tests"]) == ("2", "0", "4")
    messages = [one.attrib["message"] for one in suite.findall("testcase/failure")]
    assert messages == ["first line", "failed"]
    assert suite.findtext("system-err") == "one\ntwo"


def test_what_failed_before_the_checks_is_an_error() -> None:
    suite = suite_of(outcome=Outcome.FAILED, failure=Failure(Stage.BUILD, "scriptlet-failed", "it fell", hint="look"))
    assert suite.attrib["errors"] == "1" and suite.attrib["tests"] == "1"
    error = suite.find("testcase/error")
    assert error is not None and error.attrib["type"] == "scriptlet-failed" and "look" in (error.text or "")


def test_checks_of_a_product_that_was_left_alone_are_not_told_again() -> None:
    suite = suite_of(outcome=Outcome.UNCHANGED, failure=None)
    assert suite.attrib["tests"] == "1" and len(LAST.products[0].published.checks) > 0
    assert int(suite_of(outcome=Outcome.BUILT, failure=None).attrib["tests"]) == 1 + len(
        LAST.products[0].published.checks
    )


@pytest.mark.parametrize("text", ["\x00\x1b[0m", "]]>", "\ud800", "\ufffe", 'a"b<c>&\n\t', HOSTILE])
def test_any_text_is_well_formed_xml(text: str) -> None:
    failure = Failure(Stage.BUILD, text, text, text, text, (text, text), text)
    check_junit(junit_xml(replace(LAST, catalogue=text, products=(
        nightly_examples.changed(
            LAST.products[0], outcome=Outcome.FAILED, failure=failure, why=text, worker=text, version=text
        ),
    ))))  # fmt: skip
    night = replace(LAST, catalogue=text, products=(nightly_examples.changed(LAST.products[0], failure=failure),))
    check_atom(atom_xml([summarize_night(night, text)], text, text))


# --- Atom -----------------------------------------------------------------------------------------------


def check_atom(data: bytes) -> ElementTree.Element:
    """Holds a feed against RFC 4287 (4.1.1, 4.1.2)."""
    feed = ElementTree.fromstring(data)
    assert feed.tag == f"{ATOM}feed"
    seen = set()
    for element in (feed, *feed.findall(f"{ATOM}entry")):
        for name in ("id", "title", "updated"):
            assert len(element.findall(f"{ATOM}{name}")) == 1, name
        identifier = element.findtext(f"{ATOM}id") or ""
        assert UUID(identifier.removeprefix("urn:uuid:")).version == 5 and identifier.startswith("urn:uuid:")
        assert identifier not in seen
        seen.add(identifier)
        datetime.strptime(element.findtext(f"{ATOM}updated") or "", "%Y-%m-%dT%H:%M:%SZ")
        links = element.findall(f"{ATOM}link")
        assert [one.attrib["rel"] for one in links].count("alternate") == 1
        for link in links:
            parts = urlsplit(link.attrib["href"])
            assert not parts.scheme and not parts.netloc and not parts.path.startswith("/")
    assert len(feed.findall(f"{ATOM}author")) == 1
    assert [one.attrib["rel"] for one in feed.findall(f"{ATOM}link")] == ["self", "alternate"]
    return feed


def _notes(count: int) -> list[NightSummary]:
    return [summarize_night(night, headline(night)) for night in nightly_examples.nights(count)]


def test_a_feed_tells_nights_failures_and_new_images() -> None:
    feed = check_atom(atom_xml(_notes(6), "recipes", "registry.example"))
    entries = feed.findall(f"{ATOM}entry")
    terms = [entry.find(f"{ATOM}category") for entry in entries]
    words = [term.attrib["term"] for term in terms if term is not None]
    assert words.count("night") == 6 and words[0] == "night"
    assert {"failed", "blocked", "built"} < set(words) and "unchanged" not in words
    updated = [entry.findtext(f"{ATOM}updated") or "" for entry in entries]
    assert updated == sorted(updated, reverse=True) and feed.findtext(f"{ATOM}updated") == updated[0]


def test_entries_keep_their_identifiers() -> None:
    notes = _notes(6)
    early, late = (check_atom(atom_xml(some, "recipes", "registry.example")) for some in (notes[:5], notes))
    ids = [{entry.findtext(f"{ATOM}id") for entry in feed.findall(f"{ATOM}entry")} for feed in (early, late)]
    assert ids[0] < ids[1]
    assert early.findtext(f"{ATOM}id") == late.findtext(f"{ATOM}id")
    other = check_atom(atom_xml(notes, "recipes", "other.example"))
    assert not ids[1] & {entry.findtext(f"{ATOM}id") for entry in other.findall(f"{ATOM}entry")}


def test_links_of_a_feed_lead_to_pages(tmp_path: Path) -> None:
    for night in nightly_examples.nights(3):
        write_site(night, tmp_path, address="https://mirror.example/nightly/")
    feed = check_atom((tmp_path / "atom.xml").read_bytes())
    assert feed.attrib["{http://www.w3.org/XML/1998/namespace}base"] == "https://mirror.example/nightly/"
    links = {link.attrib["href"] for link in feed.iter(f"{ATOM}link")}
    assert len(links) > 10 and all((tmp_path / link).is_file() for link in links)


def test_a_feed_is_bounded() -> None:
    night = nightly_examples.nights(1)[0]
    notes = [summarize_night(replace(night, began=night.began + number * DAY), "x") for number in range(60)]
    feed = check_atom(atom_xml(notes, "recipes", "registry.example"))
    assert len(feed.findall(f"{ATOM}entry")) == FEED_ENTRIES_LIMIT


# --- Markdown -------------------------------------------------------------------------------------------


def test_a_summary_has_a_row_for_each_product_and_what_failed() -> None:
    text = summary_markdown(LAST)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 1 + len(LAST.products)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 9 for line in table)
    assert text.startswith("## haproxy and mysql failed; python is blocked\n")
    assert "relbuild run mysql --platform el9 --arch x86_64 --read-only" in text
    assert text.count("<details>") == text.count("</details>") == LAST.count(Outcome.FAILED)


def test_no_text_becomes_markup_in_a_summary() -> None:
    text = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", summary_markdown(LAST), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<(?!/?details>|/?summary>)", text)
    assert not re.search(r"(?<!\\)`", text) and "\x1b" not in text


def test_a_fence_is_longer_than_any_in_what_it_holds() -> None:
    failure = Failure(Stage.BUILD, "x", "x", log=("````", "</details>", "```"))
    night = replace(
        LAST,
        products=(nightly_examples.changed(LAST.products[0], outcome=Outcome.FAILED, failure=failure),),
    )
    assert "\n`````text\n````\n</details>\n```\n`````\n" in summary_markdown(night)


def test_a_summary_is_bounded() -> None:
    failure = Failure(Stage.BUILD, "x", "x" * 200_000)
    products = tuple(nightly_examples.changed(LAST.products[0], name=f"p{number}",
                                              outcome=Outcome.FAILED, failure=failure)
                     for number in range(20))  # fmt: skip
    assert len(summary_markdown(replace(LAST, products=products)).encode()) < 1 << 20


# --- headlines ------------------------------------------------------------------------------------------


def _night(*outcomes: Outcome, **changes: object) -> NightlyRun:
    products = tuple(
        Product(f"p{number}", "", "el9", "x86_64", ProductRun(outcome, "")) for number, outcome in enumerate(outcomes)
    )
    return replace(LAST, products=products, **{"exceeded": (), "repositories": (), "exit_code": 0, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("night", "said"),
    [
        (_night(), "No products"),
        (_night(Outcome.UNCHANGED), "p0 is up to date, nothing changed"),
        (_night(Outcome.BUILT, Outcome.UNCHANGED), "All 2 products are up to date, 1 new image"),
        (_night(Outcome.FAILED, Outcome.BLOCKED), "p0 failed; p1 is blocked"),
        (_night(*[Outcome.FAILED] * 4), "4 of 4 products failed"),
        (_night(Outcome.BUILT, exceeded=("x",)), "Security fixes are overdue"),
        (_night(Outcome.BUILT, repositories=LAST.repositories), "A repository could not be read"),
        (_night(Outcome.BUILT, exit_code=9), "The night ended with exit code 9"),
    ],
)
def test_a_headline_says_what_matters_most(night: NightlyRun, said: str) -> None:
    assert headline(night) == said
