"""Whatever is published, promoted, rolled back or copied passed its tests, by every command: nothing that did not has a
tag by which people pull, on any kind of mirror."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.build import Built
from pipeline.digest import Digest, canonical_json
from pipeline.mirror.addresses import parse_address
from pipeline.mirror.carrying import carry
from pipeline.mirror.directory import DirectoryRepository
from pipeline.mirror.held import Held, read_held
from pipeline.mirror.opening import Way
from pipeline.mirror.repository import Repository, is_auxiliary
from pipeline.model.artifact import Manifest
from pipeline.model.evidence import Evidence, evidence_json
from pipeline.model.image import Image
from pipeline.oci import SigningKey, Statement, Subject, attest, load_signing_key, make_image, media_types, write_layout
from pipeline.oci.predicates import SMOKE
from pipeline.progress import QUIET
from pipeline.reports import report_documents, seal_documents
from pipeline.store import Store
from tests.system.keeper import Keeper, copied, keeper, tags_of
from tests.system.peers import docker_registry
from tests.system.rpm_factory import Forge
from tests.unit.mirrored import ticking
from tests.unit.tested import index, stand_in


@dataclass(frozen=True, slots=True)
class Shop:
    """What there is to publish: `good` passed its checks; `weak` is the same image with checks that ask less; `next` is
    the next version; `failed` did not pass; `arm` is `good` as if for another architecture, tested too."""

    keeper: Keeper
    good: Built
    weak: Built
    next: Built
    failed: Built
    arm: Path

    @property
    def store(self) -> Store:
        return self.keeper.products.workshop.store


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> Shop:
    it = keeper(tmp_path_factory.mktemp("shop"), made)
    weak = it.products.build("1.0", expected="1", output="weak")
    good = it.products.build("1.0")
    failed = it.products.build("3.0", expected="another")
    assert good.report and good.report.passed and failed.report and not failed.report.passed
    assert weak.image.digest == good.image.digest and weak.evidence != good.evidence
    return Shop(it, good, weak, it.products.build("2.0"), failed, other_architecture(it, good))


def other_architecture(it: Keeper, built: Built, version: str = "1.0") -> Path:
    """The layout of an image that is the same for another architecture, with a report as its own machine would have
    left it in this store."""
    labels = tuple((key, version if key == media_types.VERSION else value) for key, value in built.image.config.labels)
    config = replace(built.image.config, architecture="arm64", labels=labels)
    image = make_image(built.image.name, version, config, built.image.layers)
    layout = built.layout.parent / f"arm-{version}" / image.name
    store = it.products.workshop.store
    write_layout(image, store=store, target=layout)
    bill = replace(built.bill, digest=image.digest, config=image.config_descriptor.digest, architecture="arm64")
    record = replace(built.record, image=image.digest)
    folder = layout.parent / f"{layout.name}.report"
    folder.mkdir()
    documents = report_documents(replace(bill, version=version), record, store=store)
    for name, data in documents:
        (folder / name).write_bytes(data)
    seal_documents(folder, image.digest, documents, store)
    assert built.evidence is not None
    keep(folder, about(built.evidence, image), store)
    return layout


def about(evidence: Evidence, image: Image) -> Evidence:
    """The evidence, as if it had been got of another image."""
    labels = dict(image.config.labels)
    contents = replace(evidence.contents, version=labels[media_types.VERSION], architecture=image.config.architecture)
    report = replace(evidence.report, image=image.digest, config=image.config)
    return replace(evidence, image=image.digest, report=report, contents=contents)


def keep(folder: Path, evidence: Evidence | bytes, store: Store) -> None:
    """Evidence with a seal that fits."""
    data = evidence if isinstance(evidence, bytes) else evidence_json(evidence)
    (folder / "evidence.json").write_bytes(data)
    (folder / "evidence.seal").write_text(store.seal(data))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def mirrors(host: str, tmp_path: Path) -> dict[str, str]:
    """An empty mirror of each kind, by its address."""
    return {
        "directory": f"dir:{tmp_path}/mirror",
        "registry": f"registry+http://{host}/{tmp_path.name.replace('_', '-')}".lower(),
        "layout": f"oci:{tmp_path}/layout",
    }


def all_tags(mirrors: dict[str, str]) -> dict[str, dict[str, set[str]]]:
    return {kind: tags_of(address) for kind, address in mirrors.items()}


# --- what a build left, spoilt -----------------------------------------------------------------------------

Spoil = Callable[[Path, Path, Shop], None]
"""(layout, report's folder, shop)."""

SPOILT: dict[str, tuple[Spoil, int, str]] = {}
"""What is wrong → how it becomes so, the exit status, the code of the refusal."""


def spoils(what: str, code: str, status: int = 7) -> Callable[[Spoil], Spoil]:
    def take(spoil: Spoil) -> Spoil:
        SPOILT[what] = (spoil, status, code)
        return spoil

    return take


def take_from(other: Path, *names: str) -> Callable[[Path], None]:
    def bring(report: Path) -> None:
        for name in names:
            shutil.copy(other / name, report / name)

    return bring


EVIDENCE = ("evidence.json", "evidence.seal")


@spoils("no evidence", "gate-report-missing")
def _(layout: Path, report: Path, shop: Shop) -> None:
    (report / "evidence.json").unlink()


@spoils("no seal", "gate-report-missing")
def _(layout: Path, report: Path, shop: Shop) -> None:
    (report / "evidence.seal").unlink()


@spoils("an empty seal", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    (report / "evidence.seal").write_text("")


@spoils("evidence of another image, with its seal", "gate-report-of-another-image")
def _(layout: Path, report: Path, shop: Shop) -> None:
    take_from(shop.next.report_folder, *EVIDENCE)(report)


@spoils("evidence of another image that says it is of this one", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    assert shop.next.evidence is not None
    (report / "evidence.json").write_bytes(evidence_json(about(shop.next.evidence, shop.good.image)))
    take_from(shop.next.report_folder, "evidence.seal")(report)


@spoils("all of another image's report", "report-of-another-image", 5)
def _(layout: Path, report: Path, shop: Shop) -> None:
    shutil.rmtree(report)
    shutil.copytree(shop.next.report_folder, report)


@spoils("evidence on checks that ask less than the recipe, with its seal", "gate-other-checks")
def _(layout: Path, report: Path, shop: Shop) -> None:
    take_from(shop.weak.report_folder, *EVIDENCE)(report)


@spoils("the record says that the recipe asks less", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    take_from(shop.weak.report_folder, *EVIDENCE)(report)
    text = (report / "materials.json").read_text()
    (report / "materials.json").write_text(text.replace(str(shop.good.record.checks), str(shop.weak.record.checks)))


@spoils("what another image was made from, with its seal", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    spliced(report, shop.next.report_folder, "materials.json")


@spoils("another image's SBOM, with its seal", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    spliced(report, shop.next.report_folder, "sbom.spdx.json")


def spliced(report: Path, other: Path, name: str) -> None:
    take_from(other, name)(report)
    theirs = json.loads((other / "seals.json").read_bytes())
    ours = json.loads((report / "seals.json").read_bytes())
    (report / "seals.json").write_bytes(canonical_json(ours | {name: theirs[name]}))


@spoils("an edited SBOM", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    path = report / "sbom.cyclonedx.json"
    path.write_text(path.read_text().replace("small-base", "small-best"))


@spoils("a report that was made under another runtime", "gate-other-runtime")
def _(layout: Path, report: Path, shop: Shop) -> None:
    evidence = of(shop)
    keep(report, replace(evidence, report=replace(evidence.report, runtime="runc 0.1")), shop.store)


@spoils("evidence that names another runtime than its report", "gate-other-runtime")
def _(layout: Path, report: Path, shop: Shop) -> None:
    keep(report, replace(of(shop), runtime="kata 3"), shop.store)


def of(shop: Shop) -> Evidence:
    assert shop.good.evidence is not None
    return shop.good.evidence


@spoils("a bit flipped in the evidence", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    flip(report / "evidence.json")


@spoils("a bit flipped in the seal", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    flip(report / "evidence.seal", 5)


def flip(path: Path, at: int = -40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    # Layers are links into the store, whose files are not to be spoilt.
    path.unlink()
    path.write_bytes(data)


def answered_wrongly(shop: Shop) -> bytes:
    """The evidence with another answer than the check wants, and still said to have passed."""
    data = (shop.good.report_folder / "evidence.json").read_text()
    assert data.count('"1.0 "') >= 1, data
    return data.replace('"1.0 "', '"9.9 "').encode()


@spoils("another answer", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    (report / "evidence.json").write_bytes(answered_wrongly(shop))


@spoils("another answer, sealed with another store's key", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    keep(report, answered_wrongly(shop), Store.open(report.parent / "other"))


@spoils("another answer, sealed with this store's key: answers are judged again", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    keep(report, answered_wrongly(shop), shop.store)


@spoils("the true evidence, sealed by another store", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    keep(report, of(shop), Store.open(report.parent / "other"))


@spoils("a report that says itself that it failed", "gate-report-failed")
def _(layout: Path, report: Path, shop: Shop) -> None:
    evidence = of(shop)
    (first, *rest) = evidence.report.instances
    checks = tuple(replace(one, passed=False) for one in first.checks)
    keep(
        report,
        replace(evidence, report=replace(evidence.report, instances=(replace(first, checks=checks), *rest))),
        shop.store,
    )


@spoils("no evidence at all in the text", "gate-report-edited")
def _(layout: Path, report: Path, shop: Shop) -> None:
    keep(report, b'{"schema":1,"passed":true}', shop.store)


@spoils("a config with other bytes", "blob-damaged", 5)
def _(layout: Path, report: Path, shop: Shop) -> None:
    place = blob(layout, shop.good.image.config_descriptor.digest)
    place.write_bytes(place.read_bytes().replace(b"8080", b"8081"))


@spoils("a manifest with other bytes", "blob-damaged", 5)
def _(layout: Path, report: Path, shop: Shop) -> None:
    place = blob(layout, shop.good.image.digest)
    place.write_bytes(place.read_bytes().replace(b"1.0", b"1.1"))


@spoils("a whole image with another manifest", "report-of-another-image", 5)
def _(layout: Path, report: Path, shop: Shop) -> None:
    labels = (*shop.good.image.config.labels, ("x", "y"))
    image = make_image("small", "1.0", replace(shop.good.image.config, labels=labels), shop.good.image.layers)
    shutil.rmtree(layout)
    write_layout(image, store=shop.store, target=layout)


def blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / "sha256" / digest.hex


@pytest.mark.parametrize("what", SPOILT)
def test_nothing_spoilt_is_published(shop: Shop, mirrors: dict[str, str], tmp_path: Path, what: str) -> None:
    spoil, status, code = SPOILT[what]
    layout = copied(shop.good.layout, tmp_path)
    spoil(layout, tmp_path / f"{layout.name}.report", shop)
    for kind in ("directory", "registry"):
        said = shop.keeper.publish([layout], mirrors[kind])
        assert said.status == status and code in said.codes, (kind, said.errors)
    assert not any(all_tags(mirrors).values())


def test_what_is_not_spoilt_is_published(shop: Shop, mirrors: dict[str, str], tmp_path: Path) -> None:
    layout = copied(shop.good.layout, tmp_path)
    for kind in ("directory", "registry"):
        assert shop.keeper.publish([layout], mirrors[kind], process=True).status == 0
        assert {"1.0", "1", "latest"} < tags_of(mirrors[kind])["small"]


@pytest.mark.parametrize("how", ["with other bytes", "of another image"])
def test_a_layer_that_was_swapped_after_the_test_is_never_sent(
    shop: Shop, mirrors: dict[str, str], tmp_path: Path, how: str
) -> None:
    """The layout's layer is held against its digest where the store has lost its own, and else the store's is sent."""
    layout = copied(shop.good.layout, tmp_path)
    digest = shop.good.image.layers[2].blob.digest
    if how == "with other bytes":
        flip(blob(layout, digest))
    else:
        blob(layout, digest).unlink()
        shutil.copy(blob(shop.next.layout, shop.next.image.layers[2].blob.digest), blob(layout, digest))
    kept = shop.store.blob(digest)
    aside = kept.rename(kept.with_name("aside"))
    try:
        for kind in ("directory", "registry"):
            said = shop.keeper.publish([layout], mirrors[kind])
            assert said.status == 5, said.errors
            # The store's own, damaged with the size unchanged, is found out when it is sent.
            kept.write_bytes(b"\0" * aside.stat().st_size)
            said = shop.keeper.publish([layout], mirrors[kind])
            assert said.status == 5, said.errors
            kept.unlink()
        assert not any(all_tags(mirrors).values())
    finally:
        aside.rename(kept)
    for kind in ("directory", "registry"):
        assert shop.keeper.publish([layout], mirrors[kind]).status == 0
        reference = f"{mirrors[kind]}/small:1.0"
        assert shop.keeper.relbuild("verify", reference, "--key", shop.keeper.public).status == 0


def test_what_failed_its_test_is_not_published(shop: Shop, mirrors: dict[str, str]) -> None:
    for kind in ("directory", "registry"):
        said = shop.keeper.publish([shop.failed.layout], mirrors[kind], process=True)
        assert (said.status, said.codes) == (7, ("gate-report-missing",))
        # Nor the good one that is named beside it: nothing is sent before all have been looked at.
        assert shop.keeper.publish([shop.next.layout, shop.failed.layout], mirrors[kind]).status == 7
    assert not any(all_tags(mirrors).values())


def test_from_another_machine_it_is_not_published(shop: Shop, mirrors: dict[str, str], tmp_path: Path) -> None:
    said = shop.keeper.publish([shop.good.layout], mirrors["directory"], store=tmp_path / "store")
    assert (said.status, said.codes) == (7, ("gate-report-edited",))
    assert not any(all_tags(mirrors).values())


def test_an_index_is_published_when_each_of_its_images_was_tested(
    shop: Shop, mirrors: dict[str, str], tmp_path: Path
) -> None:
    arm = copied(shop.arm, tmp_path)
    layouts, report = [shop.good.layout, arm], tmp_path / f"{arm.name}.report"
    evidence = (report / "evidence.json").read_bytes()
    for kind in ("directory", "registry"):
        (report / "evidence.json").unlink(missing_ok=True)
        said = shop.keeper.publish(layouts, mirrors[kind])
        assert (said.status, said.codes) == (7, ("gate-report-missing",)), "one architecture was tested"
        for name in EVIDENCE:
            shutil.copy(shop.good.report_folder / name, report / name)
        said = shop.keeper.publish(layouts, mirrors[kind])
        assert (said.status, said.codes) == (7, ("gate-report-of-another-image",)), "and stands in for the other"
        assert tags_of(mirrors[kind]) == {}
        keep(report, evidence, shop.store)
        said = shop.keeper.publish(layouts, mirrors[kind])
        assert said.status == 0, said.errors
        assert "latest" in tags_of(mirrors[kind])["small"]


def test_checks_that_changed_since_are_to_be_asked_first(shop: Shop, mirrors: dict[str, str], tmp_path: Path) -> None:
    """The recipe asks for more than when the image was built: `smoke` asks it, and then it is published."""
    products = shop.keeper.products
    weak = products.build("1.0", expected="1", output="asked")
    recipe = products.folder / "small.yaml"
    recipe.write_text(recipe.read_text().replace('body: "1"', 'body: "1.0"'))
    smoke = ("smoke", recipe, "--output", weak.layout.parent)
    said = shop.keeper.relbuild(*smoke)
    assert said.status == 0, said.errors
    # What was answered to the old checks does not carry it any more.
    now = tmp_path / "now"
    shutil.copytree(weak.report_folder, now)
    for name in EVIDENCE:
        shutil.copy(shop.weak.report_folder / name, weak.report_folder / name)
    said = shop.keeper.publish([weak.layout], mirrors["directory"])
    assert (said.status, said.codes) == (7, ("gate-other-checks",))
    assert tags_of(mirrors["directory"]) == {}
    take_from(now, *EVIDENCE)(weak.report_folder)
    assert shop.keeper.publish([weak.layout], mirrors["directory"]).status == 0
    # And a test that fails takes away what there was.
    recipe.write_text(recipe.read_text().replace('body: "1.0"', 'body: "another"'))
    assert shop.keeper.relbuild(*smoke).status == 6
    said = shop.keeper.publish([weak.layout], mirrors["registry"])
    assert (said.status, said.codes) == (7, ("gate-report-missing",))
    assert tags_of(mirrors["registry"]) == {}


# --- what stands on a mirror -------------------------------------------------------------------------------


def statements(shop: Shop, image: Image) -> dict[str, tuple[Evidence | None, Path, int, str]]:
    """What is wrong with a mirror's attestation of the tests → the evidence that is attested (None: none is), the key
    that signs it, the exit status, the code."""
    ours, evidence = shop.keeper.key, shop.next.evidence
    assert evidence is not None and shop.good.evidence is not None
    (first, *rest) = evidence.report.instances
    failed = tuple(replace(one, passed=False) for one in first.checks)
    fewer = replace(evidence.report, instances=(replace(first, checks=first.checks[:-1]), *rest))
    said = replace(evidence.report, instances=(replace(first, checks=failed), *rest))
    return {
        "none is attested": (None, ours, 5, "attestation-missing"),
        "it says that it failed": (replace(evidence, report=said), ours, 7, "gate-report-failed"),
        "it lacks an answer": (replace(evidence, report=fewer), ours, 7, "gate-report-edited"),
        "it is of another image": (shop.good.evidence, ours, 7, "gate-report-of-another-image"),
        "another runtime": (replace(evidence, runtime="kata 3"), ours, 7, "gate-other-runtime"),
        "other checks": (replace(evidence, checks=shop.good.record.checks), ours, 7, "gate-other-checks"),
        "another key signed it": (evidence, shop.keeper.other_key, 5, "signature-wrong-key"),
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
def published(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mirror with both versions, well published: what others are made from."""
    mirror = f"dir:{tmp_path_factory.mktemp('published')}/mirror"
    for built in (shop.good, shop.next):
        assert shop.keeper.publish([built.layout], mirror).status == 0
    return mirror


def signing(path: Path) -> SigningKey:
    return load_signing_key(path, lambda: b"", progress=QUIET)


def bring(shop: Shop, source: Repository, target: Repository, digest: Digest, wrong: str | None) -> Held:
    """An image with all that is attested of it, as somebody could who has no gate; with `wrong`, another evidence."""
    held = read_held(source, digest)
    carry(held, source, target, store=shop.store, progress=QUIET)
    if wrong is not None:
        for referrer in target.referrers(digest):
            if referrer.annotation("dev.sigstore.bundle.predicateType") == SMOKE:
                target.remove_manifest(referrer.descriptor.digest)
        evidence, key, _, _ = statements(shop, held.images[0])[wrong]
        if evidence is not None:
            statement = Statement(SMOKE, (Subject(digest, "small"),), evidence_json(evidence))
            artifact = attest(statement, held.manifest.descriptor, signing(key))
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
    shop: Shop, mirrors: dict[str, str], published: str, kind: str, wrong: str
) -> None:
    """1.0 stands there rightly, 2.0 was brought past the gate: it goes nowhere from there."""
    base = mirrors[kind] if kind == "layout" else f"{mirrors[kind]}/small"
    way = Way({}, QUIET, ticking())
    with (
        way.repository(parse_address(f"{published}/small")) as source,
        way.repository(parse_address(base), create=True) as target,
    ):
        old = bring(shop, source, target, shop.good.image.digest, None)
        new = bring(shop, source, target, shop.next.image.digest, wrong)
        target.point("latest", stand_in(old.manifest), None)
        target.point("candidate", stand_in(new.manifest), None)
        before = pulled(target)
        status, code = statements(shop, new.images[0])[wrong][2:]
        elsewhere = {name: address for name, address in mirrors.items() if name != kind}
        commands: list[tuple[str, ...]] = [
            ("promote", f"{base}:candidate", "--to", "stable"),
            ("promote", f"{base}@{new.digest}", "--to", "latest"),
            ("rollback", f"{base}:latest", "--to", str(new.digest)),
            *(("copy", f"{base}:candidate", place(name, one)) for name, one in elsewhere.items()),
            ("verify", f"{base}:candidate"),
        ]
        for command in commands:
            said = shop.keeper.relbuild(*command, "--key", shop.keeper.public)
            # Who only verifies has nothing refused: what stands there does not hold.
            wanted = 5 if command[0] == "verify" else status
            assert (said.status, set(said.codes)) == (wanted, {code}), (command, said.errors)
            assert pulled(target) == before, command
        assert not any(tags_of(address) for address in elsewhere.values())
        # And what is right there is not kept from moving by what is wrong beside it.
        said = shop.keeper.relbuild("promote", f"{base}:latest", "--to", "stable", "--key", shop.keeper.public)
        assert said.status == 0, said.errors
        assert pulled(target) == before | {"stable": old.digest}


def place(kind: str, address: str) -> str:
    return address if kind == "layout" else f"{address}/small"


def pulled(repository: Repository) -> dict[str, Digest | None]:
    return {tag: repository.resolve(tag) for tag in repository.tags() if not is_auxiliary(tag)}


def test_an_index_with_an_image_that_nobody_attests_goes_nowhere(
    shop: Shop, mirrors: dict[str, str], published: str
) -> None:
    way = Way({}, QUIET, ticking())
    base = f"{mirrors['directory']}/small"
    with (
        way.repository(parse_address(f"{published}/small")) as source,
        way.repository(parse_address(base), create=True) as target,
    ):
        held = bring(shop, source, target, shop.good.image.digest, None)
        image = held.images[0]
        other = make_image("small", "1.0", replace(image.config, architecture="arm64"), image.layers)
        target.put_blob(other.config_descriptor, other.config_bytes)
        target.put_manifest(Manifest(media_types.MANIFEST, other.manifest_bytes))
        both = index(image, other)
        target.put_manifest(both)
        assert isinstance(target, DirectoryRepository)
        target.shelf.move("candidate", both.descriptor)
        for command in (
            ("promote", f"{base}:candidate", "--to", "stable"),
            ("copy", f"{base}:candidate", mirrors["layout"]),
        ):
            said = shop.keeper.relbuild(*command, "--key", shop.keeper.public)
            assert said.status == 5 and {"signature-missing", "attestation-missing"} <= set(said.codes), said.errors
        assert set(pulled(target)) == {"candidate"} and tags_of(mirrors["layout"]) == {}


@pytest.mark.parametrize("tag", ["move.latest", f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig"])
def test_tags_that_nobody_pulls_by_are_not_moved_by_commands(
    shop: Shop, mirrors: dict[str, str], published: str, tag: str
) -> None:
    public, good = shop.keeper.public, str(shop.good.image.digest)
    for command in (
        ("publish", shop.good.layout, "--to", mirrors["directory"], "--tag", tag, "--key", shop.keeper.key),
        ("copy", f"{published}/small:1.0", f"{mirrors['directory']}/small:{tag}", "--key", public),
        ("promote", f"{published}/small:1.0", "--to", tag, "--key", public),
        ("rollback", f"{published}/small:{tag}", "--to", good, "--key", public),
    ):
        said = shop.keeper.relbuild(*command)
        assert (said.status, said.codes) == (2, ("tag-reserved",)), said.errors
    assert tags_of(mirrors["directory"]) == {}
