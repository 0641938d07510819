"""`copy`, `promote`, `rollback` and `scrub` as they are typed: what they say of a mirror, and their exit status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.oci import Statement, StatementSubject, make_attestation, provenance_predicate
from pipeline.oci.predicates import PROVENANCE
from pipeline.oci.statements import BUILD_TYPE, BUILDER
from tests.support.moved_tags import opened, point
from tests.support.published_images import ImagePublisher, key
from tests.support.signing_examples import OTHER, PROVENANCE_VALUE


def write_key(path: Path, number: int) -> Path:
    """Write one of the keys of `published_images`."""
    made = ec.derive_private_key(0x7E57 + number, ec.SECP256R1())
    path.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o600)
    return path


class Keeper:
    """Types commands about a mirror with two versions of a product, `latest` and `stable` on the second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maker = ImagePublisher.at(folder)
        self.key = write_key(folder / "release.key", 0)
        repository = opened(folder / "mirror", self.maker)
        for version in ("1.0", "1.1"):
            self.maker.publish(repository, self.maker.image(version), tags=(version, "latest", "stable"))
        self.there = f"dir:{folder}/mirror/small"

    def types(self, command: str, *more: str, key: bool = True) -> tuple[int, str, str]:
        import_commands(command)
        words = [command, *more, "--store", str(self.folder / "store"), "--progress", "none"]
        done = CliRunner().invoke(app, [*words, *(("--key", str(self.key)) if key else ())])
        return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path)


def test_copy_says_where_it_went_and_that_the_name_is_another(keeper: Keeper) -> None:
    target = f"dir:{keeper.folder}/there/prod"
    status, out, said = keeper.types("copy", f"{keeper.there}:latest", target, "--json")
    first, *rest = said.splitlines()
    digest = keeper.maker.image("1.1").digest
    assert status == 0 and first.startswith(f"{target}:1.1-") and first.endswith(f"  {digest}")
    assert "  tags: latest" in rest
    assert f"note: the repository there is not called 'small'; {target}/small would be one" in rest
    assert json.loads(out)["copied"][0]["repository"] == target
    status, _, said = keeper.types("copy", f"{keeper.there}:latest", f"dir:{keeper.folder}/another/small")
    assert status == 0 and "note: " not in said


@pytest.mark.parametrize("prefix", ["", "sha256:"])
def test_rollback_takes_the_digits_that_are_shown(prefix: str, keeper: Keeper) -> None:
    first = keeper.maker.image("1.0").digest
    status, _, said = keeper.types("rollback", f"{keeper.there}:stable", "--to", f"{prefix}{first.short}")
    assert status == 0 and f"→ {first}" in said
    status, _, said = keeper.types("rollback", f"{keeper.there}:latest", "--to", f"{prefix}{first.hex}")
    assert status == 0 and f"→ {first}" in said


@pytest.mark.parametrize("text", ["1.0", "abcdef", "", "g" * 12, "0" * 65, "sha512:0123456789ab"])
def test_rollback_says_what_it_takes(text: str, keeper: Keeper) -> None:
    status, _, said = keeper.types("rollback", f"{keeper.there}:stable", "--to", text)
    assert status == 2 and f"error[option-malformed] invalid --to '{text}'" in said
    assert "→ write --to sha256:…, or the first digits that `relbuild history` shows" in said


def test_promote_refuses_the_tag_of_another_image(keeper: Keeper) -> None:
    status, _, said = keeper.types("promote", f"{keeper.there}:latest", "--to", "1.0-20261101-0123456789ab")
    assert status == 7 and "error[tag-immutable]" in said and "→ choose a tag that may move" in said


def test_scrub_writes_the_file_anew_by_which_the_mirror_is_known(keeper: Keeper) -> None:
    marker = keeper.folder / "mirror" / "relbuild-mirror.json"
    before = marker.read_bytes()
    marker.unlink()
    status, _, said = keeper.types("history", f"{keeper.there}:stable", key=False)
    assert status == 5 and f"→ `relbuild scrub dir:{keeper.folder}/mirror` writes it anew" in said
    status, _, said = keeper.types("scrub", f"dir:{keeper.folder}/mirror", key=False)
    assert status == 0 and "file relbuild-mirror.json was missing: healed from the names in signatures: " in said
    assert marker.read_bytes() == before
    marker.unlink()
    keeper.types("scrub", f"dir:{keeper.folder}/mirror", "--as", "given.example", key=False)
    assert json.loads(marker.read_bytes())["host"] == "given.example"
    status, _, said = keeper.types("scrub", f"{keeper.there}:stable", key=False)
    assert status == 2 and f"→ write dir:{keeper.folder}/mirror, without" in said


def test_verify_shows_who_built_the_image_from_what_and_who_signed_that(keeper: Keeper) -> None:
    status, out, said = keeper.types("verify", f"{keeper.there}:latest", "--json")
    assert status == 0, said
    image, signer = keeper.maker.image("1.1").digest, key().public.fingerprint
    recipe = PROVENANCE_VALUE.recipe.sha256
    assert f"\n  built by relbuild 0.1.0 from recipe tiny.yaml ({recipe.short}), for el10 x86_64\n" in said
    assert f"; provenance signed by key {signer.short}; builder {BUILDER}\n" in said
    answer = json.loads(out)
    assert answer["provenance"] == {
        str(image): {
            "builder": BUILDER,
            "build_type": BUILD_TYPE,
            "versions": {"relbuild": "0.1.0"},
            "platform": "el10",
            "architecture": "x86_64",
            "recipe": {"name": "tiny.yaml", "uri": None, "digest": str(recipe)},
            "lock": None,
            "started": None,
            "finished": None,
            "signed_by": str(signer),
        }
    }
    assert answer["created"].endswith("Z")


def test_verify_shows_no_provenance_that_another_key_signed(keeper: Keeper) -> None:
    """Somebody who can write to the mirror lists a provenance of their own beside the publisher's."""
    repository, image = opened(keeper.folder / "mirror", keeper.maker), keeper.maker.image("1.1")
    forged = replace(PROVENANCE_VALUE, builder_version="6.6.6")
    statement = Statement(PROVENANCE, (StatementSubject(image.digest),), provenance_predicate(forged))
    artifact = make_attestation(statement, image.manifest_descriptor, OTHER)
    for descriptor, content in artifact.blobs:
        repository.put_blob(descriptor, content)
    repository.attach_all((artifact.manifest,))
    status, out, said = keeper.types("verify", f"{keeper.there}:latest", "--json")
    assert status == 0 and "6.6.6" not in said + out, said
    assert json.loads(out)["provenance"][str(image.digest)]["versions"] == {"relbuild": "0.1.0"}


# --- a former key


@pytest.fixture
def changed(keeper: Keeper) -> tuple[str, ...]:
    """The options that name the key of `keeper` as the former one of a new key."""
    former = keeper.folder / "release.pub"
    former.write_bytes(key().public.pem)
    return ("--key", str(write_key(keeper.folder / "new.key", 1)), "--former-key", str(former))


def test_an_sbom_and_a_copy_by_the_former_key(keeper: Keeper, changed: tuple[str, ...]) -> None:
    latest, there = f"{keeper.there}:latest", f"dir:{keeper.folder}/there/small"
    for words in (("sbom", latest), ("copy", latest, there)):
        status, _, said = keeper.types(*words, *changed[:2], key=False)
        assert status == 5 and "signature-wrong-key" in said
        status, _, said = keeper.types(*words, *changed, key=False)
        assert status == 0, said
    assert keeper.types("verify", f"{there}:latest", *changed[:2], key=False)[0] == 0


def test_an_audit_by_the_former_key_gets_beyond_the_signature(keeper: Keeper, changed: tuple[str, ...]) -> None:
    """It is of a platform that is not known here."""
    latest = f"{keeper.there}:latest"
    assert "[signature-wrong-key]" in keeper.types("audit", latest, *changed[:2], key=False)[2]
    status, _, said = keeper.types("audit", latest, *changed, key=False)
    assert status == 3 and "[platform-unknown]" in said, said


@pytest.mark.parametrize(
    "words",
    [("sbom", "IT"), ("audit", "IT"), ("history", "IT"), ("nightly", ".", "--to", "dir:m", "--plan")],
    ids=" ".join,
)
def test_a_former_key_needs_a_present_one(keeper: Keeper, changed: tuple[str, ...], words: tuple[str, ...]) -> None:
    typed = (keeper.there if word == "IT" else word for word in words)
    status, _, said = keeper.types(*typed, *changed[2:], key=False)
    assert status == 2 and "--former-key needs --key" in said and "[key-missing]" in said


def test_an_undoing_is_not_only_shown(keeper: Keeper) -> None:
    """It was done all the same."""
    mirror, stamp = f"dir:{keeper.folder}/mirror", "20261128T000000Z.00000000"
    status, _, said = keeper.types("prune", mirror, "--undo", stamp, "--dry-run", key=False)
    assert status == 2 and "error[options-contradict] --undo and --dry-run contradict each other" in said


def test_the_end_of_input_is_no_consent_to_prune(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D was told as a defect of relbuild."""
    import_commands("prune")
    monkeypatch.setattr("pipeline.cli.commands.prune.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    rules = keeper.folder / "rules.yaml"
    rules.write_text("retention: [{keep: 1}]\n")
    mirror = f"dir:{keeper.folder}/mirror"
    status, out, said = keeper.types("prune", mirror, "--rules", str(rules), "--json", key=False)
    assert status == 0 and "remove these?" in said and "nothing was removed" in said
    assert json.loads(out)["dry_run"] is True


@pytest.mark.parametrize(("option", "value"), [("--key", "release.pub"), ("--as", "registry.example/prod/small")])
def test_a_key_says_nothing_of_the_sbom_of_a_layout(option: str, value: str, keeper: Keeper) -> None:
    """It was printed as if it had been verified, whatever the key."""
    status, out, said = keeper.types("sbom", str(keeper.folder / "layout"), option, value, key=False)
    assert status == 2 and not out
    assert f"error[option-unused] '{keeper.folder}/layout' is no reference: {option} would be ignored" in said


def test_a_layout_that_is_carried_is_not_told_as_damaged_but_how_to_name_an_image_in_it(keeper: Keeper) -> None:
    """Its signatures and attestations were told as malformed images, with 5."""
    layout = keeper.folder / "carried"
    assert keeper.types("copy", f"{keeper.there}:latest", f"oci:{layout}")[0] == 0
    status, _, said = keeper.types("validate", str(layout), key=False)
    assert status == 2 and "error[several-images]" in said
    assert f"→ validate one by its tag: oci:{layout}:TAG; `relbuild scrub oci:{layout}` reads all of it" in said
    assert keeper.types("validate", f"oci:{layout}:latest", key=False)[0] == 0
    assert keeper.types("scrub", f"oci:{layout}", key=False)[0] == 0
    for words in (("inspect", str(layout)), ("show", str(layout), "/")):
        status, _, said = keeper.types(*words, key=False)
        assert status == 2 and "manifests (images, and what is attached to them), not one image" in said
        assert f"→ name an image by its tag, where a reference is taken: oci:{layout}:TAG" in said


def test_a_copy_of_which_a_tag_is_refused_tells_what_it_copied(keeper: Keeper) -> None:
    """Only what was refused was told."""
    point(keeper.folder / "mirror", "stable", keeper.maker.image("1.0").digest)
    target = f"dir:{keeper.folder}/there/small"
    status, out, said = keeper.types("copy", keeper.there, target, "--json")
    answer = json.loads(out)
    assert status == 5 and [one["code"] for one in answer["error"]] == ["tag-replayed"]
    tags = {tag for one in answer["copied"] for tag in one["tags"]}
    assert tags >= {"1.0", "1.1", "latest"} and "stable" not in tags
    assert f"{target}:1.1-" in said and f"{target}:1.0-" in said
