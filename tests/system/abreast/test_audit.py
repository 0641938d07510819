"""Which fixes a published image lacks, asked of real repositories and real mirrors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.build import build
from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.cli.commands.audit import audit_as_json, audit_as_lines
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.published import read_published
from pipeline.model.advisory import DAY
from pipeline.oci import make_index
from pipeline.prepare import BuildOptions
from pipeline.release import AuditOptions, audit
from pipeline.release.current_images import mirror_access
from tests.support.foreign_programs import docker_registry
from tests.support.mirror_operator import MirrorOperator, Said, operator
from tests.support.repository_metadata import add_metadata, add_updateinfo
from tests.support.rpm_factory import forge
from tests.support.updateinfo import Fixed, Update
from tests.system.gate.publishable import other_architecture

PUBLISHED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Site:
    """An operator with a mirror in a directory: `small` was published there for two architectures; then the repository
    said of its packages what `ADVISORIES` say."""

    operator: MirrorOperator
    mirror: str

    @property
    def repository(self) -> Path:
        return self.operator.products.folder / "repository"

    @property
    def platforms(self) -> Path:
        return self.operator.products.folder / "repositories.yaml"

    def audit(self, reference: str, *words: str | Path, key: bool = True) -> Said:
        """`relbuild audit`."""
        signed = ("--key", self.operator.public) if key else ()
        return self.operator.relbuild("audit", reference, "--repositories", self.platforms, *signed, *words)


ADVISORIES = (
    Update(
        "SA-1",
        (Fixed("small", "2-1"), Fixed("small-base", "1-2", "noarch")),
        severity="Critical",
        title="small: holes\x9b31m in the ground",
        cves=("CVE-2026-0001", "CVE-2026-0002"),
    ),
    Update("SA-2", (Fixed("small", "1:0-1"),), severity="Moderate", issued="1767225600"),
    Update("SA-3", (Fixed("small", "1-1"),), severity="Critical"),
    Update("SA-4", (Fixed("other", "2-1"),), severity="Critical"),
    Update("BA-1", (Fixed("small", "3-1"),), kind="bugfix", severity=None),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with forge(tmp_path_factory.mktemp("forge-of-site")) as made:
        it = operator(folder, made)
        first = it.products.build("1.0")
        published = it.publish([first.layout, other_architecture(it, first)], f"dir:{folder}/mirror")
        assert published.status == 0, published.errors
        second = it.products.build("2.0", name="alone")
        assert it.publish([second.layout], f"dir:{folder}/mirror").status == 0
        found = Site(it, f"dir:{folder}/mirror")
        busybox = shutil.which("busybox")
        newer = made.package(
            "small",
            version="2",
            arch="x86_64",
            install=f"mkdir -p usr/bin; cp {busybox} usr/bin/busybox; chmod 755 usr/bin/busybox",
            files=["/usr/bin/busybox"],
        )
        shutil.copy(newer, found.repository)
        subprocess.run(["createrepo_c", "--quiet", "--update", found.repository], check=True)
        add_updateinfo(found.repository, *ADVISORIES)
        yield found


def fixes(said: Said, image: int = 0, key: str = "missing") -> list[tuple[str, str, str, str]]:
    images: Any = said.value["images"]
    return [(fix["advisory"], fix["package"], fix["has"], fix["fixed_in"]) for fix in images[image][key]]


EXPECTED = [
    ("SA-1", "small", "1-1", "2-1"),
    ("SA-1", "small-base", "1-1", "1-2"),
    ("SA-2", "small", "1-1", "1:0-1"),
]


def test_an_image_in_a_directory_is_held_against_what_its_repositories_say_now(site: Site) -> None:
    said = site.audit(f"{site.mirror}/alone:latest")
    assert said.status == 0 and fixes(said) == EXPECTED
    (image,) = said.value["images"]  # type: ignore[misc]
    assert said.value["verified"] is True and (image["platform"], image["architecture"]) == ("small", "x86_64")
    (worst, *_) = image["missing"]
    assert worst["cves"] == ["CVE-2026-0001", "CVE-2026-0002"] and worst["repository"] == "small"
    assert worst["issued"] == int(PUBLISHED.timestamp() * 1000) and worst["severity"] == "critical"
    assert image["unoffered"] == [] and fixes(said, key="unavailable") == [EXPECTED[1], EXPECTED[2]]


def test_ages_are_counted_from_the_given_clock(site: Site) -> None:
    order = AuditOptions(parse_address(f"{site.mirror}/alone:latest"), site.platforms)
    for days in (0, 7, 400):
        at = PUBLISHED.timestamp() + days * 86_400 + 3600
        found = audit(order, replace(site.operator.products.build_env, clock=lambda at=at: at))  # type: ignore[misc]
        value: dict[str, Any] = audit_as_json(found)
        assert [fix["age_days"] for fix in value["images"][0]["missing"]] == [days] * 3
        assert not found.verified and (found.now - int(PUBLISHED.timestamp() * 1000)) // DAY == days
        assert f"{days} day" in "\n".join(audit_as_lines(found))


@pytest.mark.parametrize(
    ("threshold", "status", "beyond"),
    [
        ("critical", 9, ["SA-1", "SA-1"]),
        ("moderate:7", 9, ["SA-1", "SA-1", "SA-2"]),
        ("critical:30000", 0, []),
        ("low:7", 9, ["SA-1", "SA-1", "SA-2"]),
    ],
)
def test_beyond_a_threshold_the_exit_status_is_its_own(
    site: Site, threshold: str, status: int, beyond: list[str]
) -> None:
    said = site.audit(f"{site.mirror}/alone:latest", "--threshold", threshold)
    assert said.status == status, said.errors
    exceeding: Any = said.value["exceeding"]
    assert [fix["advisory"] for fix in exceeding] == beyond
    assert ("error[fixes-lacking]" in said.errors) == (status == 9)


def test_a_threshold_that_is_none_is_refused_before_anything_is_read(site: Site) -> None:
    said = site.audit(f"{site.mirror}/alone:latest", "--threshold", "severe")
    assert (said.status, said.codes) == (2, ("threshold-malformed",))


def test_other_fixes_are_listed_when_they_are_asked_for_and_no_threshold_is_on_them(site: Site) -> None:
    said = site.audit(f"{site.mirror}/alone:latest", "--all", "--threshold", "none:30000")
    assert said.status == 0 and fixes(said) == [*EXPECTED, ("BA-1", "small", "1-1", "3-1")]


def test_each_image_of_an_index_is_audited(site: Site) -> None:
    both = site.audit(f"{site.mirror}/small:latest")
    images: Any = both.value["images"]
    assert both.status == 0 and len({image["digest"] for image in images}) == 2
    assert [fixes(both, 0), fixes(both, 1)] == [EXPECTED, EXPECTED]
    # As its provenance says, which the test's second image shares with the first; the config says otherwise.
    other = site.audit(f"{site.mirror}/small:latest", "--platform", "small", "--arch", "aarch64")
    assert other.status == 0 and [image["architecture"] for image in other.value["images"]] == ["aarch64"]  # type: ignore[attr-defined]
    none = site.audit(f"{site.mirror}/small:latest", "--arch", "s390x")
    assert (none.status, none.codes) == (2, ("architecture-missing",)) and "x86_64" in none.errors


def test_an_image_in_a_registry_and_in_a_layout_is_audited_alike(site: Site, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as host:
        for target in (f"registry+http://{host}/ns/alone", f"oci:{tmp_path}/layout"):
            copied = site.operator.relbuild(
                "copy", f"{site.mirror}/alone:latest", target, "--key", site.operator.public
            )
            assert copied.status == 0, copied.errors
            said = site.audit(f"{target}:latest", "--threshold", "critical:7")
            assert (said.status, fixes(said), said.value["verified"]) == (9, EXPECTED, True)


def test_what_was_built_here_is_audited_before_it_is_published(site: Site) -> None:
    layout = site.operator.products.build("1.0", name="unpublished").layout
    said = site.audit(str(layout))
    assert said.status == 0 and said.value["verified"] is False
    # It was built from what the repository has now, so it lacks only what that speaks of and does not have.
    assert fixes(said) == fixes(said, key="unavailable") == [EXPECTED[1], ("SA-2", "small", "2-1", "1:0-1")]


def test_without_a_key_it_is_said_that_nothing_was_verified(site: Site) -> None:
    said = site.audit(f"{site.mirror}/alone:latest", key=False)
    assert said.value["verified"] is False and fixes(said) == EXPECTED
    lines = people(site, f"{site.mirror}/alone:latest")
    assert (
        "NOT VERIFIED: the package list is from unsigned data of the mirror (--key verifies it)" in lines
        and "\x9b" not in lines
        and "SA-1" in lines
        and "CVE-2026-0002" in lines
    )
    assert re.search(r"critical +\d+ days  SA-1  small 1-1 → 2-1", lines), lines


def test_another_ones_key_is_refused(site: Site) -> None:
    other = site.operator.folder / "theirs.pub"
    said = site.audit(f"{site.mirror}/alone:latest", "--key", other, key=False)
    assert (said.status, said.codes) == (5, ("signature-wrong-key",))


def test_an_index_that_nobody_signed_is_refused_where_a_key_is_given(site: Site) -> None:
    with mirror_access(site.operator.products.build_env).repository(
        parse_address(f"{site.mirror}/small")
    ) as repository:
        images = read_published(repository, "latest").images
        forged = make_index(images, {"org.relbuild.end-of-life": "2099-01-01"})
        repository.put_manifest(forged)
    reference = f"{site.mirror}/small@{forged.digest}"
    refused = site.audit(reference)
    assert (refused.status, refused.codes) == (5, ("attestation-missing",))
    said = site.audit(reference, key=False)
    assert (said.status, said.value["verified"], said.value["end_of_life"]) == (0, False, "2099-01-01")


def people(site: Site, reference: str, *words: str | Path) -> str:
    """What `audit` tells people."""
    return output(site, "audit", reference, "--repositories", site.platforms, *words)


def output(site: Site, *words: str | Path) -> str:
    """What a command writes to standard output."""
    argv = [*map(str, words), "--store", str(site.operator.store)]
    import_commands(argv[0])
    result = CliRunner().invoke(app, argv, env={"HOME": str(site.operator.folder)})
    assert result.exit_code == 0, result.stderr
    return result.stdout


# --- what is not known -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elsewhere:
    """Other repositories for an image that was published: `one` and `two`, each with packages, maybe an updateinfo."""

    site: Site
    folder: Path

    def write(self, name: str, packages: Sequence[Path] = (), updates: Sequence[Update] | bytes | None = None) -> None:
        repository = self.folder / name
        repository.mkdir()
        for path in packages:
            shutil.copy(path, repository)
        subprocess.run(["createrepo_c", "--quiet", repository], check=True)
        if isinstance(updates, bytes):
            add_metadata(repository, "updateinfo.xml", updates)
        elif updates is not None:
            add_updateinfo(repository, *updates)
        listed = ", ".join(
            f'{{id: {one.name}, baseurls: ["{one.as_uri()}"], keys: ["{self.site.operator.products.folder}/key"]}}'
            for one in sorted(self.folder.iterdir())
            if one.is_dir()
        )
        (self.folder / "p.yaml").write_text(f"platforms:\n  small:\n    repositories: [{listed}]\n")

    def audit(self, *words: str) -> Said:
        return self.site.audit(f"{self.site.mirror}/alone:latest", "--repositories", self.folder / "p.yaml", *words)

    def people(self) -> str:
        return people(self.site, f"{self.site.mirror}/alone:latest", "--repositories", self.folder / "p.yaml")


@pytest.fixture
def elsewhere(site: Site, tmp_path: Path) -> Elsewhere:
    (tmp_path / "repositories").mkdir()
    return Elsewhere(site, tmp_path / "repositories")


def test_repositories_without_advisories_are_named_and_hold_no_threshold(elsewhere: Elsewhere) -> None:
    elsewhere.write("small", sorted(elsewhere.site.repository.glob("*.rpm")))
    elsewhere.write("two")
    said = elsewhere.audit()
    assert said.status == 0 and fixes(said) == []
    (image,) = said.value["images"]  # type: ignore[misc]
    assert image["repositories_with_advisories"] == [] and image["packages_of_repositories_without"] == {"small": 2}
    lines = elsewhere.people()
    assert "no repository has advisories" in lines and "no missing fixes" not in lines
    assert "repository small has no advisories: fixes are unknown for its packages (2 here)" in lines
    threshold = elsewhere.audit("--threshold", "critical")
    assert threshold.status == 9 and "error[advisories-missing]" in threshold.errors


def test_what_others_say_of_a_silent_repositorys_packages_counts(elsewhere: Elsewhere) -> None:
    elsewhere.write("small", sorted(elsewhere.site.repository.glob("small-base*.rpm")))
    elsewhere.write("two", updates=[ADVISORIES[0]])
    said = elsewhere.audit()
    assert fixes(said) == EXPECTED[:2]
    (image,) = said.value["images"]  # type: ignore[misc]
    assert image["unoffered"] == ["small-1-1.x86_64"] and image["repositories_with_advisories"] == ["two"]
    lines = elsewhere.people()
    assert "repository small has no advisories: only fixes from two are known for its packages (2 here)" in lines
    assert "packages that no repository offers (1): small-1-1.x86_64" in lines


BOMB = b"""<?xml version="1.0"?><!DOCTYPE updates [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]>
<updates><update type="security"><id>&d;</id></update></updates>"""


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (BOMB, "metadata-malformed"),
        (b"<updates>" + b" " * (64 << 20) + b"</updates>", None),
        (b"<updates><update type='security'><id>X", "metadata-malformed"),
    ],
    ids=["bomb", "blank", "cut"],
)
def test_a_hostile_updateinfo_is_refused_by_name(elsewhere: Elsewhere, data: bytes, code: str | None) -> None:
    elsewhere.write("one", updates=data)
    said = elsewhere.audit()
    assert said.codes == ((code,) if code else ()), said.errors
    assert said.status == (5 if code else 0) and (code is None or "repository one" in said.errors)


def test_what_is_odd_in_an_updateinfo_is_said(elsewhere: Elsewhere) -> None:
    odd = replace(ADVISORIES[0], severity="Terrible", issued="long ago")
    elsewhere.write("one", updates=[odd])
    said = elsewhere.audit("--threshold", "none:20000")
    assert said.status == 9 and [fix[0] for fix in fixes(said)] == ["SA-1", "SA-1"]
    lines = elsewhere.people()
    assert "SA-1 ('terrible')" in lines and "an unreadable date" in lines


def test_packages_from_what_is_no_repository_of_the_platform_are_counted(elsewhere: Elsewhere) -> None:
    elsewhere.write("two", updates=[ADVISORIES[0]])
    assert fixes(elsewhere.audit()) == EXPECTED[:2]
    words = "repository 'small' is not part of the platform: only fixes from two are known for its packages (2 here)"
    assert words in elsewhere.people()


def test_a_platform_that_is_not_defined_is_told(site: Site) -> None:
    said = site.audit(f"{site.mirror}/alone:latest", "--platform", "smal")
    assert (said.status, said.codes) == (3, ("platform-unknown",)) and "did you mean 'small'?" in said.errors


# --- the end of life -------------------------------------------------------------------------------------


def test_the_end_of_life_goes_with_the_image_and_is_told(site: Site, tmp_path: Path) -> None:
    it = site.operator
    plain = it.products.build("3.0", name="kept")
    recipe = it.products.folder / "kept.yaml"
    recipe.write_text(recipe.read_text() + "end-of-life: 2026-03-31\n")
    ending = build(BuildOptions(recipe, site.platforms, output=tmp_path / "output"), it.products.build_env)
    assert ending.report is not None and ending.report.passed, ending.report
    assert ending.image.config_bytes == plain.image.config_bytes and ending.image.digest != plain.image.digest
    images = (plain.image, ending.image)
    assert make_index(images[1:]).data.count(b"2026-03-31") == 1 and b"2026-03-31" not in make_index(images).data
    assert it.publish([ending.layout], f"dir:{it.folder}/ends").status == 0
    reference = f"dir:{it.folder}/ends/kept:latest"
    assert it.relbuild("verify", reference, "--key", it.public).value["end_of_life"] == "2026-03-31"
    assert json.loads(output(site, "inspect", reference, "--json"))["end_of_life"] == "2026-03-31"
    assert json.loads(output(site, "inspect", f"{site.mirror}/alone:latest", "--json"))["end_of_life"] is None
    assert "end of life  2026-03-31" in output(site, "inspect", reference)
    manifest = json.loads(ending.image.manifest_bytes)
    assert manifest["annotations"]["org.relbuild.end-of-life"] == "2026-03-31"
    for at, words in (
        ("2025-12-30", "end of life: 2026-03-31"),
        ("2026-01-30", "the image is close to its end of life: 2026-03-31, in 60 days"),
        ("2026-04-02", "the image is past its end of life: 2026-03-31, 2 days ago"),
    ):
        moment = datetime.fromisoformat(f"{at}T12:00:00+00:00").timestamp()
        build_env = replace(it.products.build_env, clock=lambda moment=moment: moment)  # type: ignore[misc]
        found = audit(AuditOptions(parse_address(reference), site.platforms), build_env)
        assert words in audit_as_lines(found)
