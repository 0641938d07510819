"""An index of images that several machines pushed: each signed by the key, and attested to have passed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, RelbuildError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.attestations import SignedAttachments
from pipeline.mirror.protocol import Repository
from pipeline.mirror.push import push_image
from pipeline.model.bill import BuildRecord
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_SEAL, Evidence, evidence_json, read_evidence
from pipeline.model.image import Image
from pipeline.model.publication import Publication
from pipeline.model.rules import GateRule, MirrorRules
from pipeline.oci import provenance_predicate, write_layout
from pipeline.oci.predicates import CYCLONEDX, LOCK, PROVENANCE, SMOKE, SPDX
from pipeline.progress import QUIET
from pipeline.release import rollback, verify_reference
from pipeline.release.current_images import mirror_access
from pipeline.release.publish_members import IndexOptions, publish_index, push_member
from pipeline.reports import report_documents, report_folder, write_report
from tests.support.bills import AWKWARD
from tests.support.published_images import ImagePublisher, key
from tests.support.signing_examples import PROVENANCE_VALUE
from tests.support.tested_images import simple_evidence, with_plan


@pytest.fixture
def publisher(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


def pushed(
    publisher: ImagePublisher,
    folder: Path,
    image: Image,
    *,
    tested: bool = True,
    signer: int = 0,
    evidence: Evidence | None = None,
) -> Digest:
    """An image as a worker pushes it, or one that was not tested."""
    predicates = {PROVENANCE: provenance_predicate(PROVENANCE_VALUE), SPDX: b"{}", CYCLONEDX: b"{}"}
    if tested:
        predicates[SMOKE] = evidence_json(evidence or simple_evidence(image))
    address = parse_address(f"dir:{folder}/mirror")
    with mirror_access(publisher.build_env).mirror(address, create=True) as mirror, mirror.writing():
        repository: Repository = mirror.repository("small")
        attached = SignedAttachments(image.manifest_descriptor, "small", image.config.created, predicates, key(signer))
        before = set(repository.tags())
        done = push_image(image, (attached,), repository, source=publisher.store.blob, elsewhere={}, progress=QUIET)
        assert all("sha256-" in tag for tag in {*repository.tags()} - before)
    return done.digest


def options(folder: Path, *members: Digest, checks: Digest | None = None) -> IndexOptions:
    return IndexOptions(
        name="small",
        members=members,
        to=parse_address(f"dir:{folder}/mirror"),
        key=key(),
        provenance=PROVENANCE_VALUE,
        checks=checks or simple_evidence(ImagePublisher.at(folder / "other").image("1.0")).checks,
        attested={LOCK: b'{"lock":"both"}'},
    )


def test_images_that_were_pushed_without_a_tag_become_one_index(publisher: ImagePublisher, tmp_path: Path) -> None:
    images = [publisher.image("1.0", architecture=name) for name in ("amd64", "arm64")]
    members = [pushed(publisher, tmp_path, image) for image in images]
    done = publish_index(options(tmp_path, *members), publisher.build_env)
    verified = verify_reference(parse_address(f"dir:{tmp_path}/mirror/small:latest"), key().public, publisher.build_env)
    assert verified.held.digest == done.digest
    assert [image.digest for image in verified.held.images] == members
    assert {move.tag for move in done.moved} == {"1.0", "1", "latest"}
    layers = {layer.blob.digest for image in images for layer in image.layers}
    assert not layers & dict(done.uploaded).keys(), "they were there"


def test_an_index_from_which_a_person_moved_a_tag_back_leaves_it(publisher: ImagePublisher, tmp_path: Path) -> None:
    address = parse_address(f"dir:{tmp_path}/mirror/small:latest")
    given = options(tmp_path, pushed(publisher, tmp_path, publisher.image("1.0")))
    first = publish_index(given, publisher.build_env)
    second = replace(given, members=(pushed(publisher, tmp_path, publisher.image("1.1")),))
    publish_index(second, publisher.build_env)
    rollback(address, None, key(), second.rules, publisher.build_env)
    again = publish_index(second, publisher.build_env)
    assert (again.moved, again.left) == ((), (("latest", first.digest),))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tested": False}, "attestation-missing"),
        ({"signer": 1}, "signature-wrong-key"),
    ],
)
def test_a_member_that_is_not_tested_or_not_ours_is_refused(
    change: dict[str, int], code: str, publisher: ImagePublisher, tmp_path: Path
) -> None:
    first = pushed(publisher, tmp_path, publisher.image("1.0"))
    other = pushed(publisher, tmp_path, publisher.image("1.0", architecture="arm64"), **change)  # type: ignore[arg-type]
    with pytest.raises(RelbuildError) as refused:
        publish_index(options(tmp_path, first, other), publisher.build_env)
    assert refused.value.code == code
    with mirror_access(publisher.build_env).repository(parse_address(f"dir:{tmp_path}/mirror/small")) as repository:
        assert repository.resolve("latest") is None


def test_members_that_passed_other_checks_than_the_recipes_are_refused(
    publisher: ImagePublisher, tmp_path: Path
) -> None:
    members = [pushed(publisher, tmp_path, publisher.image("1.0", architecture=one)) for one in ("amd64", "arm64")]
    with pytest.raises(PublicationRefused) as refused:
        publish_index(options(tmp_path, *members, checks=Digest.of(b"others")), publisher.build_env)
    assert {problem.code for problem in refused.value.problems} == {"gate-other-checks"}


def test_checks_that_are_changed_and_changed_back_are_published_each_time(
    publisher: ImagePublisher, tmp_path: Path
) -> None:
    images = [publisher.image("1.0", architecture=one) for one in ("amd64", "arm64")]

    def night(started: int, *, slow: bool) -> Publication:
        """Both images pushed and their index published, after they were asked one of two plans."""
        members, checks = [], None
        for image in images:
            found = simple_evidence(image)
            asked = found.report.asked
            assert asked is not None and asked.ready is not None
            if slow:
                found = with_plan(found, replace(asked, ready=replace(asked.ready, within=60_000)))
            found = replace(found, report=replace(found.report, started=started))
            members.append(pushed(publisher, tmp_path, image, evidence=found))
            checks = found.checks
        return publish_index(options(tmp_path, *members, checks=checks), publisher.build_env)

    first, second, third = night(1000, slow=False), night(2000, slow=True), night(3000, slow=False)
    assert first.moved and first.digest == second.digest == third.digest


def built(publisher: ImagePublisher, folder: Path, *, tested: bool = True) -> Path:
    """The layout of an image as a build leaves it, with its report beside it."""
    image, store = publisher.image("1.0"), publisher.store
    layout = folder / "small.x86_64"
    write_layout(image, store=store, target=layout)
    evidence = simple_evidence(image)
    record = BuildRecord(image.digest, PROVENANCE_VALUE, evidence.checks)
    documents = report_documents(replace(AWKWARD, digest=image.digest, version="1.0"), record, store=store)
    proof = evidence if tested else None
    write_report(report_folder(layout), {}, documents, report=None, evidence=proof, image=image, store=store)
    return layout


def refused_member(publisher: ImagePublisher, folder: Path, layout: Path, rules: MirrorRules) -> set[str]:
    """The codes for which a member is not pushed; nothing of it is on the mirror then."""
    address = parse_address(f"dir:{folder}/mirror")
    with pytest.raises(PublicationRefused) as refused:
        push_member(layout, address, key(), publisher.build_env, rules=rules)
    assert not (folder / "mirror").exists()
    return {problem.code for problem in refused.value.problems}


def test_a_member_that_passed_is_pushed_and_its_index_published(publisher: ImagePublisher, tmp_path: Path) -> None:
    address = parse_address(f"dir:{tmp_path}/mirror")
    rules = MirrorRules((GateRule(tags="stable*", size=1),))
    pushed = push_member(built(publisher, tmp_path), address, key(), publisher.build_env, rules=rules)
    assert publish_index(options(tmp_path, pushed.digest), publisher.build_env).moved


def test_a_member_whose_evidence_was_edited_is_not_signed(publisher: ImagePublisher, tmp_path: Path) -> None:
    layout = built(publisher, tmp_path)
    proof = report_folder(layout) / EVIDENCE_FILE
    evidence = read_evidence(proof.read_bytes())
    proof.write_bytes(evidence_json(replace(evidence, runtime="other", report=replace(evidence.report, started=1))))
    assert refused_member(publisher, tmp_path, layout, MirrorRules()) == {"gate-report-edited"}


@pytest.mark.parametrize("written", [False, True], ids=["without evidence", "evidence from elsewhere"])
def test_a_member_that_was_not_tested_is_not_signed(publisher: ImagePublisher, tmp_path: Path, written: bool) -> None:
    layout = built(publisher, tmp_path, tested=False)
    if written:
        folder = report_folder(layout)
        (folder / EVIDENCE_FILE).write_bytes(evidence_json(simple_evidence(publisher.image("1.0"))))
        (folder / EVIDENCE_SEAL).write_text("0" * 64)
    code = "gate-report-edited" if written else "gate-report-missing"
    assert refused_member(publisher, tmp_path, layout, MirrorRules()) == {code}


def test_a_member_that_a_rule_refuses_is_not_signed(publisher: ImagePublisher, tmp_path: Path) -> None:
    rules = MirrorRules((GateRule(size=1), GateRule(tags="latest", runtimes=("kata*",))))
    layout = built(publisher, tmp_path)
    assert refused_member(publisher, tmp_path, layout, rules) == {"gate-size", "gate-runtime"}
