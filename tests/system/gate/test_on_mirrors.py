"""What stands on a mirror without right evidence is moved nowhere by any command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.image_copy import copy_image
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.published import MirroredImage, read_published
from pipeline.model.evidence import Evidence, evidence_json
from pipeline.model.image import Image
from pipeline.model.manifests import Manifest
from pipeline.oci import (
    SigningKey,
    Statement,
    StatementSubject,
    load_signing_key,
    make_attestation,
    make_image,
    media_types,
)
from pipeline.oci.predicates import SMOKE
from pipeline.progress import QUIET
from tests.support.mirror_images import ticking
from tests.support.mirror_operator import tags_of
from tests.support.tested_images import index, stand_in
from tests.system.gate.publishable import PublishableImages


def statements(images: PublishableImages, image: Image) -> dict[str, tuple[Evidence | None, Path, int, str]]:
    """What is wrong with a mirror's attestation of the tests → the evidence that is attested (None: none is), the key
    that signs it, the exit status, the code."""
    ours, evidence = images.operator.key, images.next.evidence
    assert evidence is not None and images.good.evidence is not None
    (first, *rest) = evidence.report.instances
    failed = tuple(replace(one, passed=False) for one in first.checks)
    fewer = replace(evidence.report, instances=(replace(first, checks=first.checks[:-1]), *rest))
    said = replace(evidence.report, instances=(replace(first, checks=failed), *rest))
    return {
        "none is attested": (None, ours, 5, "attestation-missing"),
        "it says that it failed": (replace(evidence, report=said), ours, 7, "gate-report-failed"),
        "it lacks an answer": (replace(evidence, report=fewer), ours, 7, "gate-report-edited"),
        "it is of another image": (images.good.evidence, ours, 7, "gate-report-of-another-image"),
        "another runtime": (replace(evidence, runtime="kata 3"), ours, 7, "gate-other-runtime"),
        "other checks": (replace(evidence, checks=images.good.record.checks), ours, 7, "gate-other-checks"),
        "another key signed it": (evidence, images.operator.other_key, 5, "signature-wrong-key"),
    }


WRONG = (
    "none is attested",
    "it says that it failed",
    "it lacks an answer",
    "it is of another image",
    "another runtime",
    "other checks",
    "another key signed it",
)


@pytest.fixture(scope="module")
def published(images: PublishableImages, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mirror with both versions, well published: what others are made from."""
    mirror = f"dir:{tmp_path_factory.mktemp('published')}/mirror"
    for built in (images.good, images.next):
        assert images.operator.publish([built.layout], mirror).status == 0
    return mirror


def signing(path: Path) -> SigningKey:
    return load_signing_key(path, lambda: b"", progress=QUIET)


def bring(
    images: PublishableImages, source: Repository, target: Repository, digest: Digest, wrong: str | None
) -> MirroredImage:
    """An image with all that is attested of it, as somebody could who has no gate; with `wrong`, another evidence."""
    held = read_published(source, digest)
    copy_image(held, source, target, store=images.store, progress=QUIET)
    if wrong is not None:
        for referrer in target.referrers(digest):
            if referrer.annotation("dev.sigstore.bundle.predicateType") == SMOKE:
                target.remove_manifest(referrer.descriptor.digest)
        evidence, key, _, _ = statements(images, held.images[0])[wrong]
        if evidence is not None:
            statement = Statement(SMOKE, (StatementSubject(digest, "small"),), evidence_json(evidence))
            artifact = make_attestation(statement, held.manifest.descriptor, signing(key))
            for descriptor, content in artifact.blobs:
                target.put_blob(descriptor, content)
            target.attach(artifact.manifest)
    return held


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        *(("directory", wrong) for wrong in WRONG),
        *(
            (kind, wrong)
            for kind in ("registry", "layout")
            for wrong in ("it lacks an answer", "another key signed it")
        ),
    ],
)
def test_nothing_moves_to_what_is_not_rightly_attested(
    images: PublishableImages, mirrors: dict[str, str], published: str, kind: str, wrong: str
) -> None:
    """1.0 stands there rightly, 2.0 was brought past the gate: it goes nowhere from there."""
    base = mirrors[kind] if kind == "layout" else f"{mirrors[kind]}/small"
    access = MirrorAccess({}, QUIET, ticking())
    with (
        access.repository(parse_address(f"{published}/small")) as source,
        access.repository(parse_address(base), create=True) as target,
    ):
        old = bring(images, source, target, images.good.image.digest, None)
        new = bring(images, source, target, images.next.image.digest, wrong)
        target.point("latest", stand_in(old.manifest), None)
        target.point("candidate", stand_in(new.manifest), None)
        before = pulled(target)
        status, code = statements(images, new.images[0])[wrong][2:]
        elsewhere = {name: address for name, address in mirrors.items() if name != kind}
        commands: list[tuple[str, ...]] = [
            ("promote", f"{base}:candidate", "--to", "stable"),
            ("promote", f"{base}@{new.digest}", "--to", "latest"),
            ("rollback", f"{base}:latest", "--to", str(new.digest)),
            *(("copy", f"{base}:candidate", place(name, one)) for name, one in elsewhere.items()),
            ("verify", f"{base}:candidate"),
        ]
        for command in commands:
            said = images.operator.relbuild(*command, "--key", images.operator.key)
            # Who only verifies has nothing refused: what stands there does not hold.
            wanted = 5 if command[0] == "verify" else status
            assert (said.status, set(said.codes)) == (wanted, {code}), (command, said.errors)
            assert pulled(target) == before, command
        assert not any(tags_of(address) for address in elsewhere.values())
        # And what is right there is not kept from moving by what is wrong beside it.
        said = images.operator.relbuild(
            "promote", f"{base}@{old.digest}", "--to", "stable", "--key", images.operator.key
        )
        assert said.status == 0, said.errors
        assert pulled(target) == before | {"stable": old.digest}


def place(kind: str, address: str) -> str:
    return address if kind == "layout" else f"{address}/small"


def pulled(repository: Repository) -> dict[str, Digest | None]:
    return {tag: repository.resolve(tag) for tag in repository.tags() if not is_auxiliary(tag)}


def test_an_index_with_an_image_that_nobody_attests_goes_nowhere(
    images: PublishableImages, mirrors: dict[str, str], published: str
) -> None:
    access = MirrorAccess({}, QUIET, ticking())
    base = f"{mirrors['directory']}/small"
    with (
        access.repository(parse_address(f"{published}/small")) as source,
        access.repository(parse_address(base), create=True) as target,
    ):
        held = bring(images, source, target, images.good.image.digest, None)
        image = held.images[0]
        other = make_image("small", "1.0", replace(image.config, architecture="arm64"), image.layers)
        target.put_blob(other.config_descriptor, other.config_bytes)
        target.put_manifest(Manifest(media_types.MANIFEST, other.manifest_bytes))
        both = index(image, other)
        target.put_manifest(both)
        assert isinstance(target, DirectoryRepository)
        target.paths.move("candidate", both.descriptor)
        for command in (
            ("promote", f"{base}:candidate", "--to", "stable"),
            ("copy", f"{base}:candidate", mirrors["layout"]),
        ):
            said = images.operator.relbuild(*command, "--key", images.operator.key)
            assert said.status == 5 and {"signature-missing", "attestation-missing"} <= set(said.codes), said.errors
        assert set(pulled(target)) == {"candidate"} and tags_of(mirrors["layout"]) == {}


@pytest.mark.parametrize("tag", ["move.latest", f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig"])
def test_tags_that_nobody_pulls_by_are_not_moved_by_commands(
    images: PublishableImages, mirrors: dict[str, str], published: str, tag: str
) -> None:
    key, good = images.operator.key, str(images.good.image.digest)
    for command in (
        ("publish", images.good.layout, "--to", mirrors["directory"], "--tag", tag, "--key", images.operator.key),
        ("copy", f"{published}/small:1.0", f"{mirrors['directory']}/small:{tag}", "--key", key),
        ("promote", f"{published}/small:1.0", "--to", tag, "--key", key),
        ("rollback", f"{published}/small:{tag}", "--to", good, "--key", key),
    ):
        said = images.operator.relbuild(*command)
        assert (said.status, said.codes) == (2, ("tag-reserved",)), said.errors
    assert tags_of(mirrors["directory"]) == {}
