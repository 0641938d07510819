"""Nothing that did not pass, or whose report was spoilt, is published to any kind of mirror."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.build import build
from pipeline.prepare import BuildOptions
from pipeline.smoke import lifecycle
from tests.support.mirror_operator import copied, tags_of
from tests.support.product_builds import RECIPE
from tests.system.gate.publishable import PublishableImages, all_tags, keep
from tests.system.gate.tampering import (
    EVIDENCE,
    TAMPERINGS,
    blob,
    flip,
    take_from,
)


@pytest.mark.parametrize("what", TAMPERINGS)
def test_nothing_spoilt_is_published(
    images: PublishableImages, mirrors: dict[str, str], tmp_path: Path, what: str
) -> None:
    spoil, status, code = TAMPERINGS[what]
    layout = copied(images.good.layout, tmp_path)
    spoil(layout, tmp_path / f"{layout.name}.report", images)
    for kind in ("directory", "registry"):
        said = images.operator.publish([layout], mirrors[kind])
        assert said.status == status and code in said.codes, (kind, said.errors)
    assert not any(all_tags(mirrors).values())


def test_what_is_not_spoilt_is_published(images: PublishableImages, mirrors: dict[str, str], tmp_path: Path) -> None:
    layout = copied(images.good.layout, tmp_path)
    for kind in ("directory", "registry"):
        assert images.operator.publish([layout], mirrors[kind], process=True).status == 0
        assert {"1.0", "1", "latest"} < tags_of(mirrors[kind])["small"]


@pytest.mark.parametrize("how", ["with other bytes", "of another image"])
def test_a_layer_that_was_swapped_after_the_test_is_never_sent(
    images: PublishableImages, mirrors: dict[str, str], tmp_path: Path, how: str
) -> None:
    """The layout's layer is held against its digest where the store has lost its own, and else the store's is sent."""
    layout = copied(images.good.layout, tmp_path)
    digest = images.good.image.layers[2].blob.digest
    if how == "with other bytes":
        flip(blob(layout, digest))
    else:
        blob(layout, digest).unlink()
        shutil.copy(blob(images.next.layout, images.next.image.layers[2].blob.digest), blob(layout, digest))
    kept = images.store.blob(digest)
    aside = kept.rename(kept.with_name("aside"))
    try:
        for kind in ("directory", "registry"):
            said = images.operator.publish([layout], mirrors[kind])
            assert said.status == 5, said.errors
            # The store's own, damaged with the size unchanged, is found out when it is sent.
            kept.write_bytes(b"\0" * aside.stat().st_size)
            said = images.operator.publish([layout], mirrors[kind])
            assert said.status == 5, said.errors
            kept.unlink(missing_ok=True)  # The store puts a damaged blob aside as soon as it is found out.
        assert not any(all_tags(mirrors).values())
    finally:
        aside.rename(kept)
    for kind in ("directory", "registry"):
        assert images.operator.publish([layout], mirrors[kind]).status == 0
        reference = f"{mirrors[kind]}/small:1.0"
        assert images.operator.relbuild("verify", reference, "--key", images.operator.public).status == 0


def test_what_failed_its_test_is_not_published(images: PublishableImages, mirrors: dict[str, str]) -> None:
    for kind in ("directory", "registry"):
        said = images.operator.publish([images.failed.layout], mirrors[kind], process=True)
        assert (said.status, said.codes) == (7, ("gate-report-missing",))
        # Nor the good one that is named beside it: nothing is sent before all have been looked at.
        assert images.operator.publish([images.next.layout, images.failed.layout], mirrors[kind]).status == 7
    assert not any(all_tags(mirrors).values())


def test_what_ends_by_itself_is_not_published(
    images: PublishableImages, mirrors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is asked of it is right also of an instance that has ended."""
    monkeypatch.setattr(lifecycle, "_STARTED_AFTER", 60.0)
    products = images.operator.products
    recipe = products.folder / "dead.yaml"
    words = {"name": "dead", "version": "1.0", "note": "", "expected": "", "mode": "0644"}
    text, begun = (RECIPE % words).split("image:\n")[0], "echo starting; /usr/libexec/nosuch-server; exit 3"
    text += f"image: {{entrypoint: [/usr/bin/busybox, sh, -c, '{begun}']}}\nsmoke:\n  checks:\n"
    text += "    - {name: none, process: {name: evil, count: 0}}\n    - {name: log, log: {lacks: FATAL}}\n"
    text += "    - {name: no compiler, packages: {absent: [gcc]}}\n"
    text += "    - {name: no curl, command: [/usr/bin/curl], expect: {exit_code: 127}}\n"
    recipe.write_text(text)
    built = build(
        BuildOptions(recipe, products.folder / "repositories.yaml", output=products.folder / "dead"),
        products.build_env,
    )
    assert built.report is not None and built.evidence is None
    assert any("starts: the instance ended by itself with exit code 3" in one for one in built.report.problems)
    for kind in ("directory", "registry"):
        said = images.operator.publish([built.layout], mirrors[kind])
        assert (said.status, said.codes) == (7, ("gate-report-missing",)), said.errors
    assert not any(all_tags(mirrors).values())


def test_from_another_machine_it_is_not_published(
    images: PublishableImages, mirrors: dict[str, str], tmp_path: Path
) -> None:
    said = images.operator.publish([images.good.layout], mirrors["directory"], store=tmp_path / "store")
    assert (said.status, said.codes) == (7, ("gate-report-edited",))
    assert not any(all_tags(mirrors).values())


def test_an_index_is_published_when_each_of_its_images_was_tested(
    images: PublishableImages, mirrors: dict[str, str], tmp_path: Path
) -> None:
    arm = copied(images.arm, tmp_path)
    layouts, report = [images.good.layout, arm], tmp_path / f"{arm.name}.report"
    evidence = (report / "evidence.json").read_bytes()
    for kind in ("directory", "registry"):
        (report / "evidence.json").unlink(missing_ok=True)
        said = images.operator.publish(layouts, mirrors[kind])
        assert (said.status, said.codes) == (7, ("gate-report-missing",)), "one architecture was tested"
        for name in EVIDENCE:
            shutil.copy(images.good.report_folder / name, report / name)
        said = images.operator.publish(layouts, mirrors[kind])
        assert (said.status, said.codes) == (7, ("gate-report-of-another-image",)), "and stands in for the other"
        assert tags_of(mirrors[kind]) == {}
        keep(report, evidence, images.store)
        said = images.operator.publish(layouts, mirrors[kind])
        assert said.status == 0, said.errors
        assert "latest" in tags_of(mirrors[kind])["small"]


def test_checks_that_changed_since_are_to_be_asked_first(
    images: PublishableImages, mirrors: dict[str, str], tmp_path: Path
) -> None:
    """The recipe asks for more than when the image was built: `smoke` asks it, and then it is published."""
    products = images.operator.products
    weak = products.build("1.0", expected="1", output="asked")
    recipe = products.folder / "small.yaml"
    recipe.write_text(recipe.read_text().replace('body: "1"', 'body: "1.0"'))
    smoke = ("smoke", recipe, "--output", weak.layout.parent)
    said = images.operator.relbuild(*smoke)
    assert said.status == 0, said.errors
    # What was answered to the old checks does not carry it any more.
    now = tmp_path / "now"
    shutil.copytree(weak.report_folder, now)
    for name in EVIDENCE:
        shutil.copy(images.weak.report_folder / name, weak.report_folder / name)
    said = images.operator.publish([weak.layout], mirrors["directory"])
    assert (said.status, said.codes) == (7, ("gate-other-checks",))
    assert tags_of(mirrors["directory"]) == {}
    take_from(now, *EVIDENCE)(weak.report_folder)
    assert images.operator.publish([weak.layout], mirrors["directory"]).status == 0
    # And a test that fails takes away what there was.
    recipe.write_text(recipe.read_text().replace('body: "1.0"', 'body: "another"'))
    assert images.operator.relbuild(*smoke).status == 6
    said = images.operator.publish([weak.layout], mirrors["registry"])
    assert (said.status, said.codes) == (7, ("gate-report-missing",))
    assert tags_of(mirrors["registry"]) == {}
