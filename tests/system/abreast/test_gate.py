"""A product that was really launched and tested passes the gate with the evidence that the build left; one that failed,
or whose evidence was edited, does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import BuildResult, build, smoke_image
from pipeline.digest import canonical_json
from pipeline.errors import PublicationRefused
from pipeline.mirror.gate import Candidate, Cleared, SealedEvidence
from pipeline.model.evidence import read_evidence
from pipeline.model.image import Image
from pipeline.model.manifests import Manifest
from pipeline.model.rules import GateRule, MirrorRules
from pipeline.oci import media_types
from pipeline.prepare import BuildEnvironment, BuildOptions
from tests.system.conftest import ROOT

RULES = MirrorRules((GateRule(size=1 << 30, forbidden_packages=("gcc", "*-devel"), labels=(media_types.VERSION,)),))


def through(image: Image, folder: Path, build_env: BuildEnvironment, rules: MirrorRules = RULES) -> Cleared:
    """The image through the gate, with what stands in its report folder."""
    evidence = (folder / "evidence.json").read_bytes() if (folder / "evidence.json").exists() else b""
    seal = (folder / "evidence.seal").read_text() if evidence else ""
    candidate = Candidate(image.manifest_bytes, image.config_bytes, evidence, SealedEvidence(seal, build_env.store))
    whole = Manifest(media_types.MANIFEST, image.manifest_bytes)
    return Cleared(image.name, (image.reference,), whole, (candidate,), rules)


@pytest.fixture
def own(
    recipes: Path, tmp_path: Path, build_env: BuildEnvironment
) -> Callable[[str], tuple[BuildResult, BuildOptions]]:
    """Builds nginx into a folder of the test's own, with something in the recipe replaced."""

    def make(checks: str = "") -> tuple[BuildResult, BuildOptions]:
        text = (ROOT / "recipes" / "nginx.yaml").read_text()
        assert "  checks:\n" in text
        # Beside the others, because recipes include one another.
        path = recipes / "own.yaml"
        path.write_text(text.replace("  checks:\n", f"  checks:\n{checks}"))
        order = BuildOptions(path, recipes / "repositories.yaml", output=tmp_path / "output")
        return build(order, build_env), order

    return make


def test_a_tested_product_passes_with_what_the_build_left(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment
) -> None:
    nginx = built("nginx")
    assert nginx.report is not None and nginx.report.passed, nginx.report and nginx.report.problems
    cleared = through(nginx.image, nginx.report_folder, build_env)
    assert cleared.digest == nginx.image.digest
    found = read_evidence((nginx.report_folder / "evidence.json").read_bytes())
    assert {str(header.nevra) for header in nginx.locked.headers} == {one.nevra for one in found.contents.packages}
    assert all(package.license for package in found.contents.packages)
    assert found.contents.version and found.contents.architecture == nginx.image.config.architecture


def _tree(value: object, *path: str | int) -> Any:
    """A part of a JSON document, to be edited in place."""
    for key in path:
        value = value[key]  # type: ignore[index]
    return value


EDITS: dict[str, Callable[[object], object]] = {
    "a check less": lambda value: _tree(value, "report", "instances", 0, "checks").pop(),
    "a limit that did not hold": lambda value: _tree(value, "report", "instances", 0, "limits", 0).update(read=1 << 60),
    "another runtime": lambda value: _tree(value, "report").update(runtime="runc 0"),
    "an instance less": lambda value: _tree(value, "report", "instances").pop(),
    "other checks": lambda value: _tree(value, "report", "asked", "checks").pop(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_evidence_that_was_edited_is_found_out(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, tmp_path: Path, edit: str
) -> None:
    nginx = built("nginx")
    value = json.loads((nginx.report_folder / "evidence.json").read_bytes())
    EDITS[edit](value)
    data = canonical_json(value)
    (tmp_path / "evidence.json").write_bytes(data)
    (tmp_path / "evidence.seal").write_text((nginx.report_folder / "evidence.seal").read_text())
    with pytest.raises(PublicationRefused, match="gate-report-edited"):
        through(nginx.image, tmp_path, build_env)
    # Also when the seal fits, because the answers are judged again.
    (tmp_path / "evidence.seal").write_text(build_env.store.seal(data))
    with pytest.raises(PublicationRefused, match=r"gate-(report-edited|other-checks|other-runtime)"):
        through(nginx.image, tmp_path, build_env)


def test_a_product_that_fails_leaves_nothing_to_publish_with(
    own: Callable[[str], tuple[BuildResult, BuildOptions]], build_env: BuildEnvironment
) -> None:
    good, _ = own("")
    assert through(good.image, good.report_folder, build_env)
    before = (good.report_folder / "evidence.json").read_bytes()
    bad, order = own("    - {name: impossible, within: 300ms, file: {path: /etc/passwd, absent: true}}\n")
    assert bad.image.digest == good.image.digest and bad.evidence is None
    assert not list(bad.report_folder.glob("evidence*"))
    with pytest.raises(PublicationRefused, match="gate-report-missing"):
        through(bad.image, bad.report_folder, build_env)
    # Evidence from before, put back: it is on the same image, and on other checks than the recipe asks for now.
    (bad.report_folder / "evidence.json").write_bytes(before)
    (bad.report_folder / "evidence.seal").write_text(build_env.store.seal(before))
    _, report = smoke_image(order, build_env, None)
    assert not report.passed and not list(bad.report_folder.glob("evidence*"))


def test_an_image_that_is_tested_later_or_again_passes(
    own: Callable[[str], tuple[BuildResult, BuildOptions]], build_env: BuildEnvironment
) -> None:
    first, order = own("")
    again = build(order, build_env)
    assert again.verdict_reused and again.evidence == first.evidence
    assert through(again.image, again.report_folder, build_env)
    untested = build(replace(order, smoke=False), build_env)
    assert untested.evidence is None and not list(untested.report_folder.glob("evidence*"))
    _, report = smoke_image(order, build_env, None)
    assert report.passed and through(untested.image, untested.report_folder, build_env)
