"""Bills, what SBOMs say of them, and where the facts in them come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6
from hypothesis import given, settings
from hypothesis import strategies as st
from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.header import ChangelogEntry
from pipeline.model.package import Nevra
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.oci.bill_json import bill_bytes, parse_bill
from pipeline.oci.purl import image_url, package_url, source_url
from pipeline.oci.record_json import parse_record, record_bytes
from pipeline.oci.sbom import DraftedSbom, SbomForm, sbom_bytes, sbom_problems
from pipeline.packages import named_fixes
from pipeline.provenance_inputs import privileged_paths
from pipeline.repos import find_source_packages, open_repositories
from pipeline.store import Store
from pipeline.trees import capability_attribute, capability_text
from tests.support.bills import AWKWARD, bills, digests, numbers, texts
from tests.support.examples import examples
from tests.support.patience import HUNG
from tests.support.rpmmd import Rpm, write_repository

ROOT = Path(__file__).parents[3]
FORMS = list(SbomForm)


# --- bill and record: one form for each value ------------------------------------------------------------


@given(bills)
def test_a_bill_that_is_written_is_read_again(bill: Bill) -> None:
    assert parse_bill(bill_bytes(bill), "bill.json") == bill


materials = st.builds(Material, texts, texts, digests, st.sampled_from(MaterialKind))
pairs = st.lists(st.tuples(texts, texts), max_size=2).map(tuple)
records = st.builds(
    BuildRecord,
    digests,
    st.builds(
        Provenance,
        materials,
        st.lists(materials, max_size=3).map(tuple),
        texts,
        texts,
        texts,
        pairs,
        pairs,
        texts,
        st.none() | numbers,
        st.none() | numbers,
    ),
    digests,
    st.lists(texts, max_size=2).map(tuple),
)


@given(records)
def test_a_record_that_is_written_is_read_again(record: BuildRecord) -> None:
    assert parse_record(record_bytes(record), "materials.json") == record


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"size":1000', '"size":"1000"'),
        ('"size":1000', '"size":1000.0'),
        ('"size":1000', '"size":-1'),
        ('"size":1000', '"size":1000,"size":1000'),
        ('"mode":"4755"', '"mode":"4855"'),
        ('"mode":"4755"', '"mode":"04755"'),
        ('"mode":"4755"', '"mode":2541'),
        ('"format":1,', '"format":1, '),
        ('"format":1,', ""),
        ("sha256:" + "a" * 64, "a" * 64),
        ('"nevra":"odd-1-1.noarch"', '"nevra":"odd"'),
        ('"layers":[', '"layers":[[],'),
        ('"layer":"base",', ""),
    ],
)
def test_a_bill_in_another_form_is_refused(before: str, after: str) -> None:
    text = bill_bytes(AWKWARD).decode()
    assert before in text
    with pytest.raises(VerificationError) as caught:
        parse_bill(text.replace(before, after, 1).encode(), "bill.json")
    assert caught.value.code == "bill-malformed"
    assert caught.value.problems[0].hint


def test_another_format_is_named() -> None:
    document = json.loads(bill_bytes(AWKWARD)) | {"format": 2}
    with pytest.raises(VerificationError, match="it has format 2") as caught:
        parse_bill(canonical_json(document), "bill.json")
    assert caught.value.code == "format-newer"
    with pytest.raises(VerificationError) as other:
        parse_record(canonical_json({"format": 9}), "materials.json")
    assert other.value.code == "format-newer"


@given(st.binary(max_size=60) | st.recursive(texts | numbers, lambda x: st.lists(x) | st.dictionaries(texts, x)))
def test_rubbish_is_an_error_and_never_a_crash(value: object) -> None:
    data = value if isinstance(value, bytes) else canonical_json(value)
    with pytest.raises(VerificationError):
        parse_bill(data, "b")
    with pytest.raises(VerificationError):
        parse_record(data, "r")


# --- SBOMs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_what_is_awkward_is_valid_all_the_same(form: SbomForm) -> None:
    assert sbom_problems(sbom_bytes(AWKWARD, form), form) == []


@settings(max_examples=examples(60), deadline=None)
@given(bill=bills)
def test_any_bill_gives_a_valid_spdx_document(bill: Bill) -> None:
    named = replace(bill, packages=tuple({one.checksum: one for one in bill.packages}.values()))
    assert sbom_problems(sbom_bytes(named, SbomForm.SPDX), SbomForm.SPDX) == []


@settings(max_examples=examples(30), deadline=None)
@given(bill=bills)
def test_the_library_reads_an_spdx_document_and_writes_the_same(bill: Bill) -> None:
    named = replace(bill, packages=tuple({one.checksum: one for one in bill.packages}.values()))
    value = json.loads(sbom_bytes(named, SbomForm.SPDX))
    written = DocumentConverter().convert(JsonLikeDictParser().parse(value))  # type: ignore[no-untyped-call]
    assert json.loads(json.dumps(written)) == value


@settings(max_examples=examples(30), deadline=None)
@given(bill=bills)
def test_any_bill_gives_a_valid_cyclonedx_document(bill: Bill) -> None:
    named = replace(bill, packages=tuple({one.checksum: one for one in bill.packages}.values()))
    assert sbom_problems(sbom_bytes(named, SbomForm.CYCLONEDX), SbomForm.CYCLONEDX) == []


@settings(max_examples=examples(30), deadline=None)
@given(bill=bills)
def test_the_library_reads_a_cyclonedx_document_and_writes_the_same(bill: Bill) -> None:
    named = replace(bill, packages=tuple({one.checksum: one for one in bill.packages}.values()))
    value = json.loads(sbom_bytes(named, SbomForm.CYCLONEDX))
    assert json.loads(JsonV1Dot6(Bom.from_json(value)).output_as_string()) == value  # type: ignore[attr-defined]


def test_the_validators_find_what_is_wrong() -> None:
    spdx = json.loads(sbom_bytes(AWKWARD, SbomForm.SPDX))
    spdx["packages"][3]["licenseDeclared"] = "LicenseRef-nobody-knows"
    assert sbom_problems(json.dumps(spdx).encode(), SbomForm.SPDX)
    spdx["packages"][3]["supplier"] = "nobody in particular"
    assert sbom_problems(json.dumps(spdx).encode(), SbomForm.SPDX)
    cyclonedx = json.loads(sbom_bytes(AWKWARD, SbomForm.CYCLONEDX))
    cyclonedx["components"][0]["colour"] = "red"
    assert sbom_problems(json.dumps(cyclonedx).encode(), SbomForm.CYCLONEDX)


@pytest.mark.costly
@pytest.mark.parametrize("form", FORMS)
def test_the_same_bill_gives_the_same_bytes_in_another_process(form: SbomForm) -> None:
    program = (
        "import sys; from tests.support.bills import AWKWARD; from pipeline.oci.sbom import *;"
        f"sys.stdout.buffer.write(sbom_bytes(AWKWARD, SbomForm('{form}')))"
    )
    environment = {"PATH": os.environ["PATH"], "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "4711", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=False, timeout=HUNG
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == sbom_bytes(AWKWARD, form)


@pytest.mark.parametrize("form", FORMS)
def test_documents_that_differ_have_different_names(form: SbomForm) -> None:
    moved = replace(AWKWARD, packages=(replace(AWKWARD.packages[0], repository="updates"), *AWKWARD.packages[1:]))
    names = []
    for bill in (AWKWARD, moved):
        document = json.loads(sbom_bytes(bill, form))
        names.append(document.get("documentNamespace") or document["serialNumber"])
    assert names[0] != names[1]


def test_spdx_says_what_contains_what_and_what_it_was_made_from() -> None:
    document = json.loads(sbom_bytes(AWKWARD, SbomForm.SPDX))
    names = {one["SPDXID"]: one["name"] for one in document["packages"]}
    said = {(one["spdxElementId"], one["relationshipType"]): set[str]() for one in document["relationships"]}
    for one in document["relationships"]:
        said[one["spdxElementId"], one["relationshipType"]].add(one["relatedSpdxElement"])
    (image,) = said["SPDXRef-DOCUMENT", "DESCRIBES"]
    layers = said[image, "CONTAINS"]
    assert {names[one] for one in layers} == {"base", "state"}
    base = next(one for one in layers if names[one] == "base")
    assert len(said[base, "CONTAINS"]) == len(AWKWARD.packages)
    kind = "GENERATED_FROM"
    made = {names[one]: names[next(iter(related))] for (one, how), related in said.items() if how == kind}
    assert made["duplicate"] == "duplicate" and "silent" not in made and made["wordy"] == "strange name"
    sources = [one for one in document["packages"] if one.get("primaryPackagePurpose") == "SOURCE"]
    assert len(sources) == len({one.source_rpm for one in AWKWARD.packages if one.source_rpm})


def test_a_licence_is_an_expression_or_what_the_header_says() -> None:
    document = json.loads(sbom_bytes(AWKWARD, SbomForm.SPDX))
    declared = {(one["name"], one.get("packageFileName", "")[-8:]): one for one in document["packages"]}
    own = {one["licenseId"]: one["extractedText"] for one in document["hasExtractedLicensingInfos"]}

    def licence(name: str, end: str) -> str:
        text: str = declared[name, end]["licenseDeclared"]
        return text

    assert licence("duplicate", "6_64.rpm") == "GPL-2.0-or-later AND (MIT OR Apache-2.0)"
    assert licence("duplicate", "i686.rpm") == "GPL-3.0-or-later WITH GCC-exception-3.1"
    assert licence("fedora", "arch.rpm") == "MIT AND LicenseRef-Fedora-Public-Domain"
    assert "LicenseRef-Fedora-Public-Domain" in own
    assert licence("silent", "arch.rpm") == "NOASSERTION"
    for name, text in (("foreign", "See /usr/share/doc/x/copyright"), ("odd", "((("), ("old", "GPLv2+ and LGPLv2")):
        assert own[licence(name, "arch.rpm")] == text
    assert all(one["licenseConcluded"] == "NOASSERTION" for one in document["packages"])


def test_every_component_says_where_it_is_and_what_it_is() -> None:
    document = json.loads(sbom_bytes(AWKWARD, SbomForm.CYCLONEDX))
    assert document["specVersion"] == "1.6"
    assert document["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    for billed in AWKWARD.packages:
        (found,) = [one for one in document["components"] if one["hashes"][0]["content"] == billed.checksum.hex]
        facts = [(one["name"], one["value"]) for one in found["properties"]]
        assert ("relbuild:layer", "base") in facts
        assert ("relbuild:layer:digest", str(AWKWARD.layers[0].digest)) in facts
        assert [value for name, value in facts if name == "relbuild:changelog-names"] == list(billed.fixes)
        assert found["purl"].startswith("pkg:rpm/")
        assert found.get("supplier", {"name": ""})["name"] == billed.vendor
    root = next(one for one in document["dependencies"] if one["ref"] == str(AWKWARD.digest))
    assert len(root["dependsOn"]) == len(AWKWARD.packages)


def test_package_urls_are_those_of_the_specification() -> None:
    nevra = Nevra("a+b", 2, "1.0~rc1", "1.fc43", "x86_64")
    url = package_url(nevra, "Fedora Project", "ab-1.0-1.fc43.src.rpm")
    assert str(url) == "pkg:rpm/fedora/a%2Bb@1.0~rc1-1.fc43?arch=x86_64&epoch=2&upstream=ab-1.0-1.fc43.src.rpm"
    assert "epoch" not in str(package_url(replace(nevra, epoch=0), "x", ""))
    assert str(package_url(nevra, "Ünï & Co", "")).startswith("pkg:rpm/n-co/")
    assert str(package_url(nevra, "", "")).startswith("pkg:rpm/unknown/")
    assert str(source_url("a-b-1.0-1.src.rpm", "CentOS")) == "pkg:rpm/centos/a-b@1.0-1?arch=src"
    assert source_url("strange", "CentOS") is None
    assert str(image_url("MySQL", Digest("a" * 64), "amd64")) == f"pkg:oci/mysql@sha256:{'a' * 64}?arch=amd64"


# --- what changelogs name --------------------------------------------------------------------------------


def test_a_changelog_names_vulnerabilities_and_numbers_of_bugs_are_none() -> None:
    entries = (
        ChangelogEntry(2, "x", "- Fix CVE-2024-12345 and cve-2023-0001 (closes: #1234, bz 99, LP: 7)"),
        ChangelogEntry(1, "x", "- CVE-2024-12345 again; GHSA-2345-cfgh-jmpq; CVE-24-1; XCVE-2020-11111; CVE-2020-1"),
    )
    assert named_fixes(entries) == ("CVE-2023-0001", "CVE-2024-12345", "GHSA-2345-cfgh-jmpq")


# --- what lends rights -----------------------------------------------------------------------------------

CAPABILITY = ("security.capability", capability_attribute("cap_net_raw=ep"))
LOWER = Tree.of(
    {
        one.path: one
        for one in (
            Entry("usr/bin/su", EntryKind.FILE, 0o4755, owner="su-1-1.x86_64"),
            Entry("usr/bin/wall", EntryKind.FILE, 0o2755, owner="wall-1-1.x86_64"),
            Entry("usr/bin/ping", EntryKind.FILE, 0o755, owner="ping-1-1.x86_64", xattrs=(CAPABILITY,)),
            Entry("usr/bin/plain", EntryKind.FILE, 0o755, owner="plain-1-1.x86_64"),
            Entry("usr/bin/sudo", EntryKind.HARDLINK, 0, link="usr/bin/su", owner="su-1-1.x86_64"),
            Entry("var/mail", EntryKind.DIRECTORY, 0o2775, owner="mail-1-1.x86_64"),
            Entry("opt/it", EntryKind.DIRECTORY, 0o755),
            Entry("opt/it/tool", EntryKind.FILE, 0o4755),
        )
    }
)


def _shown(*upper: Entry) -> dict[str, str]:
    found = privileged_paths(LOWER, iter(upper))
    assert list(found) == sorted(found, key=lambda one: one.path)
    return {one.path: f"{one.mode:o} {one.package} {one.capabilities}".strip() for one in found}


ALL = {
    "/opt/it/tool": "4755",
    "/usr/bin/ping": "755 ping-1-1.x86_64 cap_net_raw=ep",
    "/usr/bin/su": "4755 su-1-1.x86_64",
    "/usr/bin/sudo": "4755 su-1-1.x86_64",
    "/usr/bin/wall": "2755 wall-1-1.x86_64",
}


def test_files_that_lend_rights_are_named_and_directories_are_not() -> None:
    assert _shown() == ALL


@pytest.mark.parametrize(
    ("upper", "gone"),
    [
        (Entry("usr/bin/su", EntryKind.FILE, 0o755), {"/usr/bin/su", "/usr/bin/sudo"}),
        (Entry("usr/bin/ping", EntryKind.FILE, 0o755), {"/usr/bin/ping"}),
        (Entry("usr/bin/wall", EntryKind.WHITEOUT), {"/usr/bin/wall"}),
        (Entry("opt/it", EntryKind.WHITEOUT), {"/opt/it/tool"}),
        (Entry("opt/it", EntryKind.OPAQUE), {"/opt/it/tool"}),
        (Entry("opt/it", EntryKind.SYMLINK, link="../srv"), {"/opt/it/tool"}),
        (Entry("opt/it", EntryKind.DIRECTORY, 0o700), set()),
    ],
)
def test_the_last_layer_has_the_last_word(upper: Entry, gone: set[str]) -> None:
    assert _shown(upper) == {path: said for path, said in ALL.items() if path not in gone}


def test_what_a_scriptlet_makes_privileged_is_named_with_the_package_of_its_path() -> None:
    more = _shown(Entry("usr/bin/plain", EntryKind.FILE, 0o6755), Entry("srv/own", EntryKind.FILE, 0o4711))
    assert more == {**ALL, "/usr/bin/plain": "6755 plain-1-1.x86_64", "/srv/own": "4711"}
    kept = _shown(Entry("opt/it", EntryKind.OPAQUE), Entry("opt/it/new", EntryKind.FILE, 0o4755))
    assert "/opt/it/new" in kept and "/opt/it/tool" not in kept
    turned = _shown(Entry("opt/it/new", EntryKind.FILE, 0o4755), Entry("opt/it", EntryKind.OPAQUE))
    assert turned == kept, "the order of entries in a layer means nothing"


@pytest.mark.parametrize("text", ["cap_net_raw=ep", "cap_chown,cap_net_raw=ip cap_bpf=p", "cap_setuid=eip", "63=ep"])
def test_the_text_of_capabilities_means_the_same_attribute(text: str) -> None:
    value = capability_attribute(text)
    assert capability_attribute(capability_text(value)) == value
    assert capability_text(capability_attribute("cap_net_raw+ep")) == "cap_net_raw=ep"


# --- source packages -------------------------------------------------------------------------------------


def _offered(folder: Path, rpms: list[Rpm], names: set[str]) -> dict[str, str]:
    repository = PackageRepository("sources", baseurls=(write_repository(folder / "repository", rpms),))
    store = Store.open(folder / "store")
    (opened,) = open_repositories(Platform("p", (repository,)), "x86_64", variables={}, store=store)
    found = find_source_packages(opened, names, store=store)
    return {name: f"{one.nevra} {one.location} {one.repository} {one.size}" for name, one in found.items()}


def test_source_packages_are_found_by_the_names_of_their_files(tmp_path: Path) -> None:
    rpms = [
        Rpm("a", "3:1-2", "src", location="Packages/a.src.rpm"),
        Rpm("b", "1-1", "src"),
        Rpm("c", "1-1", "x86_64"),
    ]
    wanted = {"a-1-2.src.rpm", "c-1-1.src.rpm", "c-1-1.x86_64.rpm", "d-1-1.src.rpm"}
    assert _offered(tmp_path, rpms, wanted) == {"a-1-2.src.rpm": "a-3:1-2.src Packages/a.src.rpm sources 100"}


@pytest.mark.parametrize(
    ("rpm", "code"),
    [
        (Rpm("a", "1-1", "src", checksum_type="sha512"), "checksum-weak"),
        (Rpm("a", "x:1-1", "src"), "metadata-malformed"),
    ],
)
def test_a_source_package_that_is_described_badly_is_refused(tmp_path: Path, rpm: Rpm, code: str) -> None:
    with pytest.raises(VerificationError) as caught:
        _offered(tmp_path, [rpm], {"a-1-1.src.rpm"})
    assert caught.value.code == code


# --- drafted before the layers' blobs are known ----------------------------------------------------------


def unlike(bill: Bill) -> Bill:
    """The bill as it is drafted: with random digests, of no size."""
    layers = tuple(replace(layer, digest=Digest.of(os.urandom(32)), size=0) for layer in bill.layers)
    return replace(bill, digest=Digest.of(os.urandom(32)), layers=layers)


@pytest.mark.parametrize("form", FORMS)
@given(bills)
def test_a_drafted_document_is_completed_to_the_bytes_of_one_that_is_made_at_once(form: SbomForm, bill: Bill) -> None:
    distinct = len({layer.name for layer in bill.layers}) == len(bill.layers)
    assert DraftedSbom.of_bill(unlike(bill), form).completed(bill) == (sbom_bytes(bill, form) if distinct else None)


@pytest.mark.parametrize("form", FORMS)
def test_awkward_documents_and_layers_that_are_known_are_completed_too(form: SbomForm) -> None:
    drafted = replace(unlike(AWKWARD), layers=(unlike(AWKWARD).layers[0], *AWKWARD.layers[1:]))
    whole = DraftedSbom.of_bill(drafted, form).completed(AWKWARD)
    assert whole == sbom_bytes(AWKWARD, form) and sbom_problems(whole, form) == []
    same = tuple(replace(layer, digest=Digest("5" * 64)) for layer in AWKWARD.layers)
    twins = replace(AWKWARD, layers=same)
    assert DraftedSbom.of_bill(unlike(twins), form).completed(twins) == sbom_bytes(twins, form)


@pytest.mark.parametrize(
    "more",
    [
        {"version": "2"},
        {"config": Digest("c" * 64)},
        {"packages": AWKWARD.packages[1:]},
        {"privileged": ()},
        {"layers": AWKWARD.layers[:1]},
        {"layers": (*AWKWARD.layers, replace(AWKWARD.layers[0], name="more"))},
        {"layers": (replace(AWKWARD.layers[0], name="other"), *AWKWARD.layers[1:])},
    ],
)
def test_a_draft_of_another_bill_is_not_completed(more: dict[str, Any]) -> None:
    assert DraftedSbom.of_bill(unlike(AWKWARD), SbomForm.SPDX).completed(replace(AWKWARD, **more)) is None


def test_layers_of_one_name_are_not_completed_because_their_digests_are_sorted() -> None:
    named = replace(AWKWARD, layers=tuple(replace(layer, name="base") for layer in AWKWARD.layers))
    low, high = Digest("0" * 64), Digest("f" * 64)
    drafted = replace(
        named, layers=tuple(replace(one, digest=d) for one, d in zip(named.layers, (high, low), strict=True))
    )
    real = replace(
        named, layers=tuple(replace(one, digest=d) for one, d in zip(named.layers, (low, high), strict=True))
    )
    assert DraftedSbom.of_bill(drafted, SbomForm.CYCLONEDX).completed(real) is None
