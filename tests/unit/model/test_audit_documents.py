"""What an image's documents say of it, read back; and the end of life in recipes and manifests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.model.advisory import Advisories, Advisory, FixedPackage, ImagePackage, Threshold
from pipeline.model.bill import Bill
from pipeline.model.image import ImageConfig
from pipeline.model.package import Nevra
from pipeline.model.provenance import Material, MaterialKind, Provenance
from pipeline.oci import end_of_life, make_image, make_index, provenance_predicate
from pipeline.oci.attestation_reader import built_for, listed_packages
from pipeline.oci.sbom import SbomForm, sbom_bytes
from pipeline.recipes import load_recipe
from pipeline.release.image_audit import (
    Audit,
    AuditedContents,
    AuditOptions,
    audit_image,
    require_below,
    rpm_architecture,
)
from pipeline.resolve import RepositoryAdvisories
from tests.support.bills import AWKWARD, bills
from tests.support.examples import examples
from tests.support.recipe_folder import GOOD, good, only_problem, write
from tests.support.schemas import jsonschema, validate_recipe
from tests.support.tiny_image import CONFIG, fake_layer

# --- documents -------------------------------------------------------------------------------------------


def of_bill(bill: Bill) -> set[tuple[Nevra, str, str]]:
    return {(one.nevra, one.source_rpm, one.repository) for one in bill.packages}


def of_document(bill: Bill) -> set[tuple[Nevra, str, str]]:
    listed = listed_packages(sbom_bytes(bill, SbomForm.CYCLONEDX), "SBOM")
    return {(one.nevra, one.source, one.repository) for one in listed}


def test_the_packages_of_an_sbom_are_those_of_the_bill() -> None:
    assert of_document(AWKWARD) == of_bill(AWKWARD)


@settings(max_examples=examples(30), deadline=None)
@given(bills)
def test_the_packages_of_any_sbom_are_those_of_its_bill(bill: Bill) -> None:
    assert of_document(bill) == of_bill(bill)


COMPONENT = {"name": "a", "version": "1-1", "purl": "pkg:rpm/x/a@1-1?arch=noarch"}


def sbom(*changed: dict[str, object]) -> bytes:
    return json.dumps({"components": [{**COMPONENT, **one} for one in changed]}).encode()


def test_what_is_no_rpm_is_passed_over_and_what_others_leave_out_is_not_demanded() -> None:
    listed = listed_packages(sbom({}, {"purl": "pkg:deb/debian/b@1"}, {"purl": None}), "SBOM")
    assert listed == (ImagePackage(Nevra("a", 0, "1", "1", "noarch")),)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "1"},
        {"version": ""},
        {"version": "x:1-1"},
        {"purl": "pkg:rpm/x/a@1-1"},
        {"purl": "pkg:rpm/"},
        {"name": 7},
    ],
)
def test_a_document_that_does_not_say_which_package_it_means_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(VerificationError) as caught:
        listed_packages(sbom(changed), "SBOM of x")
    assert caught.value.code == "document-malformed" and "SBOM of x" in str(caught.value)


def test_what_an_image_was_built_for_is_in_its_provenance() -> None:
    recipe = Material("r.yaml", "", Digest("a" * 64), MaterialKind.RECIPE)
    told = provenance_predicate(Provenance(recipe, (), "centos-stream-9", "aarch64", "1"))
    assert built_for(told, "provenance") == ("centos-stream-9", "aarch64")
    with pytest.raises(VerificationError):
        built_for(b"{}", "provenance")


def test_rpms_name_of_an_architecture() -> None:
    assert rpm_architecture(ImageConfig("arm64", 0)) == "aarch64"
    assert rpm_architecture(ImageConfig("arm", 0, variant="v7")) == "armv7hl"
    with pytest.raises(VerificationError, match="mips"):
        rpm_architecture(ImageConfig("mips", 0))


# --- judging ---------------------------------------------------------------------------------------------

ORDER = AuditOptions(Path("layout"), Path("repositories.yaml"))


def look(bulletin: RepositoryAdvisories, *packages: ImagePackage, order: AuditOptions = ORDER) -> Audit:
    digest = Digest("a" * 64)
    image = audit_image(AuditedContents(digest, "p", "x86_64", packages), bulletin, order)
    return Audit("it", digest, False, "", (image,), 1_000_000)


def test_packages_of_modules_whose_builds_are_gone_are_told_and_can_be_helped() -> None:
    fixed = FixedPackage("nodejs", "x86_64", "20.2-1.module_el9", "nodejs:20")
    given_ = Advisory("A", "security", "low", "", 0, (), (fixed,), "r")
    bulletin = RepositoryAdvisories(
        Advisories((given_,), ("r",)),
        {("nodejs", "x86_64"): "20.2-1.module_el9"},
        {"nodejs:20": frozenset({"nodejs-0:20.2-1.module_el9.x86_64"})},
    )
    old = ImagePackage.of("nodejs", "20.1-1.module_el9", "x86_64", repository="r")
    (image,) = look(bulletin, old).images
    assert (image.missing, image.streams, image.modular) == ((), (), ("nodejs-20.1-1.module_el9.x86_64",))
    (image,) = look(bulletin, old, order=replace(ORDER, modules=("nodejs:20",))).images
    assert [fix.advisory for fix in image.missing] == ["A"] and image.streams == ("nodejs:20",)
    new = ImagePackage.of("nodejs", "20.2-1.module_el9", "x86_64", repository="r")
    (image,) = look(bulletin, new).images
    assert (image.missing, image.streams, image.modular) == ((), ("nodejs:20",), ())


def test_where_there_are_advisories_and_nothing_is_lacking_a_threshold_holds() -> None:
    own = ImagePackage.of("a", "1-1", "noarch", repository="r")
    require_below(Threshold("low"), look(RepositoryAdvisories(Advisories((), ("r",)), {}, {}), own))


@pytest.mark.parametrize("evr", ["", "1", "a:1-1", "1-1-1", "1 1-1"])
def test_a_package_has_a_version_and_a_release(evr: str) -> None:
    with pytest.raises(ValueError, match="not \\[epoch"):
        ImagePackage.of("a", evr, "noarch")


# --- the end of life -------------------------------------------------------------------------------------


def test_a_recipe_may_say_until_when_its_product_is_kept_up(tmp_path: Path) -> None:
    assert good(tmp_path).end_of_life == ""
    assert good(tmp_path, "end-of-life: 2027-04-30").end_of_life == "2027-04-30"
    validate_recipe({"end-of-life": "2027-04-30"})
    with pytest.raises(jsonschema.ValidationError):
        validate_recipe({"end-of-life": 2027})


def test_the_end_of_life_is_the_recipes_own(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("demo", "below") + "end-of-life: 2027-04-30\n", "below.yaml")
    path = write(tmp_path, 'name: above\nversion: "1"\ninclude: [below.yaml]\n', "above.yaml")
    assert load_recipe(path).end_of_life == ""


@pytest.mark.parametrize("text", ["2027", "30.4.2027", "2027-02-30", "20270430", '""', "2027-04-30T00:00:00Z", "soon"])
def test_what_is_no_day_is_refused_where_it_stands(tmp_path: Path, text: str) -> None:
    problem = only_problem(tmp_path, f"end-of-life: {text}\n")
    assert problem.code == "date-malformed" and problem.place == "demo.yaml:9: end-of-life"
    assert problem.hint == "write the date as YYYY-MM-DD, such as 2027-04-30"


def test_a_manifest_and_its_index_carry_the_end_of_life() -> None:
    notes = {"org.relbuild.end-of-life": "2027-04-30"}
    amd, arm = (
        make_image("x", "1", replace(CONFIG, architecture=arch), [fake_layer("base")], notes)
        for arch in ("amd64", "arm64")
    )
    assert end_of_life(amd.manifest_bytes) == end_of_life(make_index([amd, arm]).data) == "2027-04-30"
    none = make_image("x", "1", CONFIG, [fake_layer("base")])
    assert end_of_life(none.manifest_bytes) == end_of_life(make_index([amd, none]).data) == ""
    odd = make_image("x", "1", CONFIG, [fake_layer("base")], {"org.relbuild.end-of-life": "soon"})
    assert end_of_life(odd.manifest_bytes) == ""
