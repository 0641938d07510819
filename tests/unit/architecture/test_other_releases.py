"""Documents that outlive a release: one field more, one field less, and a newer format, of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import RelbuildError, VerificationError
from pipeline.mirror.attestations import _says_the_same
from pipeline.model.evidence import evidence_json, read_evidence
from pipeline.model.json_form import EMBEDDED, extends, from_json, read_json, to_json
from pipeline.model.night_record import (
    NIGHT_FORMAT,
    NightlyRun,
    Product,
    ProductRun,
)
from pipeline.model.published_image import Resources
from pipeline.model.report_form import read_report, report_json
from pipeline.nightly.inputs_record import (
    InputsRecord,
    PublishedProduct,
    parse_inputs_record,
    recall_published,
    record_predicate,
    remember_published,
)
from pipeline.nightly.no_change import RememberedNight, Snapshot
from pipeline.nightly.previous_night import PreviousNight
from pipeline.oci.bill_json import bill_bytes, parse_bill
from pipeline.oci.predicates import SMOKE
from pipeline.oci.record_json import parse_record as parse_materials
from pipeline.oci.record_json import record_bytes
from pipeline.resolve import format_lock, parse_lock
from pipeline.site import refuse_newer_site, write_site
from pipeline.site.site_history import NO_HISTORY, NO_STATE, read_site_document
from pipeline.store import Store
from tests.support import nightly_examples
from tests.support.bills import AWKWARD
from tests.support.tested_images import evidence, image, report
from tests.unit.oci.test_provenance_inputs import IMAGE, inputs, make_build_record
from tests.unit.resolve.test_lock import GOOD

NIGHT = nightly_examples.nights(2)[-1]
RECORD = InputsRecord((("recipe", "sha256:1"),), ("a.j2",), GOOD)
STANDING = PublishedProduct(RECORD, Digest.of(b"image"), "1-2025", NIGHT.products[0])
WATCH = Snapshot(Digest.of(b"made"), (), (), (), (), (), ())


@dataclass(frozen=True)
class Document:
    """A document of this release as JSON, how it is read, a member that must be there, and one with a default ("":
    none). `version` is the member with its format ("": what surrounds it has one)."""

    value: Mapping[str, Any]
    read: Callable[[Any], object]
    needed: str
    optional: str = ""
    version: str = "format"


def history_of(value: Any, empty: Any, folder: Path) -> object:
    folder.mkdir(exist_ok=True)
    (folder / "it.json").write_text(json.dumps(value))
    return read_site_document(folder / "it.json", empty)


def whole(value: object) -> Mapping[str, Any]:
    made = to_json(value)
    assert isinstance(made, dict)
    return made


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Document]:
    folder = tmp_path_factory.mktemp("documents")
    write_site(NIGHT, folder / "site")
    name = NIGHT.products[0].name
    history = json.loads((folder / "site" / "data" / f"{name}.json").read_text())
    state = json.loads((folder / "site" / "data" / "site.json").read_text())
    materials = record_bytes(make_build_record(IMAGE, inputs(folder)))
    return {
        "night": Document(whole(NIGHT), lambda value: read_json(NightlyRun, value), "began", "threshold", ""),
        "product": Document(whole(NIGHT.products[0]), lambda value: read_json(Product, value), "name", "checks", ""),
        "standing": Document(
            whole(STANDING), lambda value: read_json(PublishedProduct, value), "digest", "product", ""
        ),
        "remembered": Document(
            whole(RememberedNight(WATCH, NIGHT)), lambda value: read_json(RememberedNight, value), "watch", "", ""
        ),
        "inputs": Document(
            json.loads(record_predicate(RECORD)), lambda value: parse_inputs_record(json.dumps(value).encode()), "lock"
        ),
        "history": Document(history, lambda value: history_of(value, NO_HISTORY, folder / "h"), "series"),
        "state": Document(state, lambda value: history_of(value, NO_STATE, folder / "s"), "nights"),
        "report": Document(report_json(report(image())), read_report, "image", "", "schema"),
        "evidence": Document(
            json.loads(evidence_json(evidence(image()))),
            lambda value: read_evidence(canonical_json(value)),
            "report",
            "",
            "schema",
        ),
        "bill": Document(
            json.loads(bill_bytes(AWKWARD)), lambda value: parse_bill(canonical_json(value), "bill.json"), "image"
        ),
        "materials": Document(
            json.loads(materials), lambda value: parse_materials(canonical_json(value), "materials.json"), "materials"
        ),
    }


OF_SURROUNDINGS = ("night", "product", "standing", "remembered")
"""Nouns whose format is that of what they stand in."""

NAMES = (*OF_SURROUNDINGS, "inputs", "history", "state", "report", "evidence", "bill", "materials")


def grown(value: object) -> object:
    """With one member more in every object (but in a report's `measured`, which is a table of figures)."""
    if isinstance(value, dict):
        inner = {key: one if key == "measured" else grown(one) for key, one in value.items()}
        return {**inner, "~added": {"by": ["a newer", "relbuild"]}}
    return [grown(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_one_field_more_reads_as_the_same(name: str, documents: Mapping[str, Document]) -> None:
    document = documents[name]
    assert document.read(grown(document.value)) == document.read(document.value)


@pytest.mark.parametrize("name", NAMES)
def test_one_field_less_has_its_default_or_is_named(name: str, documents: Mapping[str, Document]) -> None:
    document = documents[name]
    less = {key: inner for key, inner in document.value.items() if key != document.needed}
    if name in ("history", "state"):  # Of a site: begun anew, and what was there is kept beside it.
        assert document.read(less) in (NO_HISTORY, NO_STATE)
    else:
        with pytest.raises((ValueError, VerificationError), match=document.needed):
            document.read(less)
    if document.optional:
        shorter = {key: inner for key, inner in document.value.items() if key != document.optional}
        made = document.read(shorter)
        part = made if hasattr(made, document.optional) else made.published  # type: ignore[attr-defined]
        assert getattr(part, document.optional) == type(part).__dataclass_fields__[document.optional].default


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_SURROUNDINGS])
def test_a_newer_format_is_refused_by_name(name: str, documents: Mapping[str, Document]) -> None:
    document = documents[name]
    newer = {**document.value, document.version: document.value[document.version] + 1}
    with pytest.raises(VerificationError, match="was made by a newer relbuild") as refused:
        document.read(newer)
    assert refused.value.code == "format-newer" and refused.value.problems[0].hint
    for odd in (0, -1, "1", True, None, 1.0):
        if name not in ("history", "state"):
            with pytest.raises((ValueError, TypeError, VerificationError)):
                document.read({**document.value, document.version: odd})


def test_a_lock_with_a_field_more_reads_as_the_same_and_a_newer_one_is_named() -> None:
    more = GOOD.replace('recipe = "r"', 'recipe = "r"\nadded = 1').replace("[[section]]", "[[section]]\nadded = [2]")
    more = more.replace("size = 10", "size = 10, added = 3")
    assert parse_lock(more, "r.lock") == parse_lock(GOOD, "r.lock")
    assert format_lock(parse_lock(more, "r.lock")) == GOOD
    with pytest.raises(RelbuildError, match="made by a newer relbuild") as refused:
        parse_lock(GOOD.replace("format = 3", "format = 99").replace("format = 2", "format = 99"), "r.lock")
    assert refused.value.code == "lock-newer-format"


def test_identities_and_results_within_a_release_stay_exact() -> None:
    with pytest.raises(ValueError, match="~added"):
        from_json(Product, grown(whole(NIGHT.products[0])))
    with pytest.raises(ValueError, match="lacks checks"):
        from_json(Product, {key: one for key, one in whole(NIGHT.products[0]).items() if key != "checks"})


def test_a_product_is_one_object_whatever_it_is_split_into() -> None:
    members = whole(NIGHT.products[0])
    assert {*members} >= {
        *("name", "recipe", "platform", "arch", "description", "labels", "parent", "end_of_life"),
        *("outcome", "why", "began", "took", "steps", "worker", "uploaded", "moved", "failure"),
        *("version", "digest", "previous", "tags", "immutable", "built", "build_took", "packages", "layers", "changes"),
        *("fixes", "missing", "checks", "resources", "attached"),
    }
    for product in NIGHT.products:
        assert from_json(Product, whole(product)) == product
    with pytest.raises(ValueError, match="lacks outcome, why"):
        read_json(Product, {name: members[name] for name in ("name", "recipe", "platform", "arch")})


def test_one_member_never_stands_for_two_fields() -> None:
    @dataclass(frozen=True)
    class Twice:
        why: str
        run: ProductRun = field(default=NIGHT.products[0].run, metadata=EMBEDDED)

    with pytest.raises(TypeError, match="one member for two fields"):
        from_json(Twice, {"why": "", "outcome": "built"})


# --- where they are used ------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "nightly.json"


def test_a_field_more_in_a_nights_record_loses_no_figure_of_what_did_not_change(page: Path) -> None:
    page.write_text(json.dumps(grown(whole(NIGHT))))
    warned: list[str] = []
    former = PreviousNight(page, warned.append)
    assert {name: former[name] for name in former} == {one.name: one for one in NIGHT.products}
    assert former.key == NIGHT.key and warned == []
    assert former[NIGHT.products[0].name].published.packages


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda value: {**value, "format": NIGHT_FORMAT + 1}, "was made by a newer relbuild"),
        (lambda value: {**value, "format": None}, "has no format"),
        (lambda value: {**value, "products": 3}, "is not the record of a nightly run"),
        (lambda value: [value], "is not the record of a nightly run"),
    ],
)
def test_a_nights_record_that_cannot_be_read_is_told_once(
    change: Callable[[object], object], told: str, page: Path
) -> None:
    page.write_text(json.dumps(change(whole(NIGHT))))
    warned: list[str] = []
    former = PreviousNight(page, warned.append)
    assert former.get("any") is None and former.get("other") is None and former.key == ""
    (line,) = warned
    assert told in line and "start again" in line


def test_one_product_that_cannot_be_read_is_told_and_the_others_are_read(page: Path) -> None:
    value = json.loads(json.dumps(whole(NIGHT)))
    first, second = value["products"][:2]
    first["outcome"] = "retired"
    page.write_text(json.dumps(value))
    warned: list[str] = []
    former = PreviousNight(page, warned.append)
    assert former.get(first["name"]) is None and former.get(first["name"]) is None
    assert former[second["name"]].name == second["name"]
    (line,) = warned
    assert first["name"] in line and "retired" in line


def test_what_the_store_remembers_of_a_product_outlives_a_release(tmp_path: Path) -> None:
    store, warned = Store.open(tmp_path / "store"), cast("list[str]", [])
    remember_published(store, "dir:/m", NIGHT.products[0], STANDING)
    assert recall_published(store, "dir:/m", NIGHT.products[0].name, warned.append) == STANDING and warned == []
    odd = replace(
        STANDING,
        product=replace(
            NIGHT.products[0], published=replace(NIGHT.products[0].published, resources=Resources(peak_memory=1))
        ),
    )
    assert read_json(PublishedProduct, grown(whole(odd))) == odd


def test_a_site_of_a_newer_relbuild_is_left_as_it_is(tmp_path: Path) -> None:
    write_site(NIGHT, tmp_path)
    refuse_newer_site(tmp_path)
    state = tmp_path / "data" / "site.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 2}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for refuse in (lambda: refuse_newer_site(tmp_path), lambda: write_site(NIGHT, tmp_path)):
        with pytest.raises(VerificationError) as refused:
            refuse()
        assert refused.value.code == "format-newer"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_site_with_a_field_more_keeps_its_past(tmp_path: Path) -> None:
    for night in nightly_examples.nights(3):
        write_site(night, tmp_path)
    for path in (tmp_path / "data").glob("*.json"):
        path.write_text(json.dumps(grown(json.loads(path.read_text()))))
    write_site(nightly_examples.nights(4)[-1], tmp_path)
    assert len(read_site_document(tmp_path / "data" / "site.json", NO_STATE).nights) >= 3
    assert not list(tmp_path.rglob("*.damaged"))


def test_evidence_of_a_newer_relbuild_beside_ours_does_not_keep_ours_from_being_attested() -> None:
    ours = evidence_json(evidence(image()))
    newer = canonical_json({**json.loads(ours), "schema": 99})
    assert not _says_the_same(SMOKE, newer, ours) and _says_the_same(SMOKE, ours, ours)


def test_known_members_are_still_read_in_one_form_only() -> None:
    assert extends({"a": [1, {"b": "x", "more": 1}]}, {"a": [1, {"b": "x"}]})
    for document in ({"a": [1]}, {"a": [1, {"b": "y"}]}, {"a": [True, {"b": "x"}]}, {}, []):
        assert not extends(document, {"a": [1, {"b": "x"}]})
    assert extends({}, {"a": 1}, optional=True) and not extends({"a": 2}, {"a": 1}, optional=True)
