"""The operator's rules on the command line: each refuses by its name, passes what satisfies it, and holds for the
repositories and tags that it names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.build import BuildResult
from pipeline.model.evidence import evidence_json
from pipeline.oci import make_image, read_layout, write_layout
from pipeline.reports import report_documents, seal_documents
from tests.support.foreign_programs import docker_registry
from tests.support.mirror_operator import MirrorOperator, operator, tags_of
from tests.support.rpm_factory import Forge


@dataclass(frozen=True, slots=True)
class RuleTestImages:
    """`old` and `new` are versions 1.0 and 2.0; `arm` is 1.0 and `arm_new` 2.0 for another architecture, tested there;
    `setuid` is 1.0 with a setuid file."""

    operator: MirrorOperator
    old: BuildResult
    new: BuildResult
    setuid: BuildResult
    arm: Path
    arm_new: Path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, made: Forge) -> RuleTestImages:
    it = operator(tmp_path_factory.mktemp("images"), made)
    old, new = it.products.build("1.0"), it.products.build("2.0")
    setuid = it.products.build("1.0", output="setuid", mode="4755")
    return RuleTestImages(it, old, new, setuid, other_architecture(it, old), other_architecture(it, new))


def other_architecture(it: MirrorOperator, built: BuildResult) -> Path:
    """The layout of the same image for another architecture, with a report as its own machine would have left it in
    this store: nothing is launched, because this machine cannot."""
    image = make_image(built.image.name, "", replace(built.image.config, architecture="arm64"), built.image.layers)
    store, evidence = it.products.build_env.store, built.evidence
    assert evidence is not None
    layout = built.layout.parent / "arm" / image.name
    write_layout(image, store=store, target=layout)
    folder = layout.parent / f"{layout.name}.report"
    folder.mkdir()
    bill = replace(built.bill, digest=image.digest, config=image.config_descriptor.digest, architecture="arm64")
    documents = report_documents(bill, replace(built.record, image=image.digest), store=store)
    for name, data in documents:
        (folder / name).write_bytes(data)
    seal_documents(folder, image.digest, documents, store)
    report = replace(evidence.report, image=image.digest, config=image.config)
    contents = replace(evidence.contents, architecture="arm64")
    data = evidence_json(replace(evidence, image=image.digest, report=report, contents=contents))
    (folder / "evidence.json").write_bytes(data)
    (folder / "evidence.seal").write_text(store.seal(data))
    return layout


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def registry(host: str, tmp_path: Path) -> str:
    return f"registry+http://{host}/{tmp_path.name.replace('_', '-')}".lower()


def rules(folder: Path, text: str) -> Path:
    path = folder / "operator.yaml"
    path.write_text(f"gate:\n  - {text}\n")
    return path


RULES = {
    "gate-size": ("{size: 100KiB}", "{size: 10MiB}"),
    "gate-setuid": ("{setuid: []}", "{setuid: [/etc/version]}"),
    "gate-labels": ("{labels: [org.example.support]}", "{labels: [org.opencontainers.image.licenses]}"),
    "gate-license": ('{licenses: ["AGPL*"]}', '{licenses: ["*"]}'),
    "gate-package": ("{forbidden-packages: [small-b*]}", "{forbidden-packages: [gcc, '*-devel']}"),
    "gate-limits": ("{enforced-limits: [bandwidth]}", '{enforced-limits: [tmpfs, "*"]}'),
    "gate-runtime": ("{runtimes: [kata *]}", "{runtimes: [kata *, runc *, crun *]}"),
}
"""Code → a rule that the image with a setuid file breaks, and one that it satisfies."""


@pytest.mark.parametrize("code", RULES)
def test_each_rule_refuses_by_name_and_passes_what_satisfies_it(
    images: RuleTestImages, tmp_path: Path, registry: str, code: str
) -> None:
    """From a file that is named, for a registry; and from the one in a directory mirror's root."""
    broken, satisfied = RULES[code]
    said = images.operator.publish([images.setuid.layout], registry, "--rules", rules(tmp_path, broken))
    assert (said.status, said.codes) == (7, (code,)), said.errors
    assert "operator.yaml" in said.errors, "the rule that refused is named"
    assert tags_of(registry) == {}
    said = images.operator.publish([images.setuid.layout], registry, "--rules", rules(tmp_path, satisfied))
    assert said.status == 0, said.errors

    mirror = tmp_path / "mirror"
    assert images.operator.publish([images.new.layout], f"dir:{mirror}", "--tag", "other").status == 0
    before = tags_of(f"dir:{mirror}")
    (mirror / "rules.yaml").write_text(f"gate:\n  - {broken}\n")
    said = images.operator.publish([images.setuid.layout], f"dir:{mirror}")
    assert (said.status, said.codes) == (7, (code,)), said.errors
    assert tags_of(f"dir:{mirror}") == before
    (mirror / "rules.yaml").write_text(f"gate:\n  - {satisfied}\n")
    assert images.operator.publish([images.setuid.layout], f"dir:{mirror}").status == 0


def test_rules_that_are_written_before_the_mirror_hold_for_its_first_image(
    images: RuleTestImages, tmp_path: Path
) -> None:
    assert images.operator.publish([images.old.layout], f"dir:{tmp_path}/here").status == 0
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    publishing = ("publish", images.setuid.layout, "--to", f"dir:{mirror}", "--key", images.operator.key)
    copying = ("copy", f"dir:{tmp_path}/here/small:1.0", f"dir:{mirror}/small", "--key", images.operator.public)
    for words in (publishing, copying):
        broken, satisfied = ("{size: 1KiB}", "{size: 10MiB}")
        for path in mirror.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (mirror / "rules.yaml").write_text(f"gate:\n  - {broken}\n")
        said = images.operator.relbuild(*words)
        assert (said.status, said.codes) == (7, ("gate-size",)), said.errors
        assert tags_of(f"dir:{mirror}") == {}
        (mirror / "rules.yaml").write_text(f"gate:\n  - {satisfied}\n")
        said = images.operator.relbuild(*words)
        assert said.status == 0, said.errors
        assert set(tags_of(f"dir:{mirror}")) == {"small"}
        assert (mirror / "rules.yaml").read_text() == f"gate:\n  - {satisfied}\n"


def test_a_tag_does_not_go_back_but_on_purpose(images: RuleTestImages, tmp_path: Path) -> None:
    """Without rules of the operator's own too."""
    mirror = f"dir:{tmp_path}/mirror"
    assert images.operator.publish([images.new.layout], mirror).status == 0
    before = tags_of(mirror)
    said = images.operator.publish([images.old.layout], mirror)
    assert (said.status, set(said.codes)) == (7, {"gate-older"}), said.errors
    assert "tag 'latest' points to a newer image: version 2.0, not 1.0" in said.errors
    assert tags_of(mirror) == before
    assert images.operator.publish([images.old.layout], mirror, "--tag", "legacy").status == 0
    assert images.operator.relbuild(*move(images, "promote", f"{mirror}/small:latest", "stable")).status == 0
    said = images.operator.relbuild(*move(images, "promote", f"{mirror}/small:legacy", "stable"))
    assert (said.status, said.codes) == (7, ("gate-older",))
    said = images.operator.relbuild(*move(images, "rollback", f"{mirror}/small:stable", str(images.old.image.digest)))
    assert said.status == 0, said.errors
    allowed = rules(tmp_path, "{refuse-older: false}")
    assert images.operator.publish([images.old.layout], mirror, "--rules", allowed).status == 0


def test_a_tag_keeps_its_platforms_but_on_purpose(images: RuleTestImages, tmp_path: Path) -> None:
    mirror = f"dir:{tmp_path}/mirror"
    assert images.operator.publish([images.old.layout, images.arm], mirror).status == 0
    before = tags_of(mirror)
    said = images.operator.publish([images.arm], mirror)
    assert (said.status, set(said.codes)) == (7, {"gate-platforms-fewer"}), said.errors
    assert "tag 'latest' would lose platforms that its present image has: linux/amd64" in said.errors
    assert tags_of(mirror) == before
    allowed = rules(tmp_path, "{refuse-fewer-platforms: false}")
    assert images.operator.publish([images.arm], mirror, "--rules", allowed).status == 0
    said = images.operator.relbuild("rollback", f"{mirror}/small:latest", "--key", images.operator.key)
    assert said.status == 0, said.errors
    # Back to fewer by rollback, without a rule.
    alone = str(read_layout(images.arm).digest)
    said = images.operator.relbuild(*move(images, "rollback", f"{mirror}/small:latest", alone))
    assert said.status == 0, said.errors


def move(images: RuleTestImages, verb: str, reference: str, to: str, *more: str | Path) -> tuple[str | Path, ...]:
    return (verb, reference, "--to", to, "--key", images.operator.key, *more)


def test_all_architectures_have_one_version(images: RuleTestImages, tmp_path: Path) -> None:
    mirror = f"dir:{tmp_path}/mirror"
    said = images.operator.publish([images.old.layout, images.arm_new], mirror)
    assert (said.status, said.codes) == (7, ("gate-versions-differ",)), said.errors
    assert "amd64: 1.0, arm64: 2.0" in said.errors
    assert tags_of(mirror) == {}
    assert images.operator.publish([images.old.layout, images.arm], mirror).status == 0
    allowed = rules(tmp_path, "{same-versions: false}")
    assert images.operator.publish([images.new.layout, images.arm], mirror, "--rules", allowed).status == 0


def test_a_channel_has_rules_of_its_own(images: RuleTestImages, tmp_path: Path, registry: str) -> None:
    """What may be published is not by that what may become stable."""
    stable = "{tags: 'stable*', labels: [org.example.support]}"
    file = rules(tmp_path, stable)
    mirror = tmp_path / "mirror"
    for address, more in ((f"dir:{mirror}", ()), (registry, ("--rules", file))):
        assert images.operator.publish([images.old.layout], address, *more).status == 0
        if not more:
            (mirror / "rules.yaml").write_text(file.read_text())
        reference = f"{address}/small:1.0"
        before = tags_of(address)
        for channel in ("stable", "stable-2"):
            said = images.operator.relbuild(*move(images, "promote", reference, channel, *more))
            assert (said.status, said.codes) == (7, ("gate-labels",)), said.errors
            assert tags_of(address) == before
        assert images.operator.relbuild(*move(images, "promote", reference, "testing", *more)).status == 0
        said = images.operator.publish([images.old.layout], address, "--tag", "stable", *more)
        assert (said.status, said.codes) == (7, ("gate-labels",))
        assert tags_of(address)["small"] == before["small"] | {"testing"}


def test_rules_are_on_repositories_as_the_mirror_names_them(images: RuleTestImages, tmp_path: Path) -> None:
    """Of an image that was copied to `prod/small`, and not of the name that the image gives itself."""
    assert images.operator.publish([images.old.layout], f"dir:{tmp_path}/here").status == 0
    there = tmp_path / "there"
    assert images.operator.publish([images.old.layout], f"dir:{there}").status == 0
    (there / "rules.yaml").write_text("gate:\n  - {repositories: 'prod/*', tags: '*', labels: [org.example.support]}\n")
    copying = ("copy", f"dir:{tmp_path}/here/small:1.0", f"dir:{there}/prod/small", "--key", images.operator.public)
    said = images.operator.relbuild(*copying)
    assert (said.status, said.codes) == (7, ("gate-labels",)), said.errors
    assert set(tags_of(f"dir:{there}")) == {"small"}
    # What is there from before the rule is held to it when it moves on; and the other repository is not.
    (there / "rules.yaml").rename(there / "later.yaml")
    assert images.operator.relbuild(*copying).status == 0
    (there / "later.yaml").rename(there / "rules.yaml")
    for name, status in (("prod/small", 7), ("small", 0)):
        said = images.operator.relbuild(*move(images, "promote", f"dir:{there}/{name}:1.0", "stable"))
        assert said.status == status, said.errors
    assert "stable" not in tags_of(f"dir:{there}")["prod/small"]


def test_rules_on_immutable_tags_hold_for_copies_too(images: RuleTestImages, tmp_path: Path) -> None:
    assert images.operator.publish([images.old.layout], f"dir:{tmp_path}/here").status == 0
    file = rules(tmp_path, "{tags: '1.0-*', labels: [org.example.support]}")
    target = f"dir:{tmp_path}/there/small"
    for reference in ("small:1.0", f"small@{images.old.image.digest}"):
        copying = ("copy", f"dir:{tmp_path}/here/{reference}", target, "--key", images.operator.public, "--rules", file)
        said = images.operator.relbuild(*copying)
        assert (said.status, said.codes) == (7, ("gate-labels",)), said.errors
    assert tags_of(f"dir:{tmp_path}/there") == {}


def test_rules_that_cannot_be_read_let_nothing_through(images: RuleTestImages, tmp_path: Path, registry: str) -> None:
    for text, code in (("{sise: 1MiB}", None), ("{size: much}", None)):
        said = images.operator.publish([images.old.layout], registry, "--rules", rules(tmp_path, text))
        assert said.status == 3 and said.codes != (), (code, said.errors)
    said = images.operator.publish([images.old.layout], registry, "--rules", tmp_path / "missing.yaml")
    assert said.status in (2, 3), said.errors
    assert tags_of(registry) == {}
