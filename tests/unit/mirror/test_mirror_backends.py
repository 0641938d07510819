"""Every kind of mirror is a folder below `mirror/backends` that implements all of the protocol, and nobody asks which
kind one is: what works on one works on any."""

from __future__ import annotations

import ast
import importlib
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.mirror import address_parser
from pipeline.mirror.address import AddressForm
from pipeline.mirror.address_parser import ADDRESS_FORMS, is_address, parse_address
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.mirror.repair_sources import RepairSources
from pipeline.model.rules import MirrorRules
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.source import PIPELINE, ROOT, nodes, trees

BACKENDS = PIPELINE / "mirror" / "backends"
FOLDERS = sorted(path.name for path in BACKENDS.iterdir() if (path / "__init__.py").is_file())

OUTSIDE = {
    ("mirror/address_parser.py", "its form"),
    ("nightly/formats.py", "the format of its files"),
    ("release/serve_gate.py", "a layout that a build left, which is no mirror yet"),
}
"""Files that may import from a backend's folder, and what."""


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_form_of_each_folder_is_listed(folder: str) -> None:
    named = importlib.import_module(f"pipeline.mirror.backends.{folder}.{folder}_address_form")
    forms = [value for value in vars(named).values() if isinstance(value, AddressForm)]
    assert forms, f"pipeline/mirror/backends/{folder} has no address form"
    missing = [form.prefix for form in forms if form not in ADDRESS_FORMS]
    assert not missing, f"list {missing} of {folder} in pipeline/mirror/address_parser.py: ADDRESS_FORMS"


def test_no_prefix_is_the_beginning_of_another() -> None:
    for one, other in itertools.permutations(ADDRESS_FORMS, 2):
        assert not one.prefix.startswith(other.prefix)
    assert len({type(form).__module__ for form in ADDRESS_FORMS}) == len(FOLDERS)


def test_nobody_imports_a_kind_of_mirror_but_who_is_named_here() -> None:
    offences = []
    for path, tree in trees().items():
        place = path.relative_to(PIPELINE).as_posix()
        own = path.relative_to(BACKENDS).parts[0] if path.is_relative_to(BACKENDS) else ""
        for module in _imports(tree):
            kind = module.removeprefix("pipeline.mirror.backends.").partition(".")[0]
            if kind != module.partition(".")[0] and kind != own and place not in {file for file, _ in OUTSIDE}:
                offences.append(f"{place} imports {module}")
    assert not offences, "\n".join(offences)


def test_nobody_asks_which_kind_a_mirror_or_an_address_is() -> None:
    """Neither by the class of something nor by comparing a form with one of those that are listed."""
    modules = [importlib.import_module(type(form).__module__) for form in ADDRESS_FORMS]
    names = {name for module in modules for name, value in vars(module).items() if value in ADDRESS_FORMS}
    assert len(names) == len(ADDRESS_FORMS)
    offences = []
    for path, tree in trees().items():
        for node in nodes(tree):
            match node:
                case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]):
                    if ast.unparse(kind).endswith(("Mirror", "Repository", "Form")):
                        offences.append(f"{path.relative_to(PIPELINE)}:{node.lineno}: {ast.unparse(node)}")
                case ast.Compare(left=left, comparators=others):
                    if names & {
                        name.id for one in (left, *others) for name in ast.walk(one) if isinstance(name, ast.Name)
                    }:
                        offences.append(f"{path.relative_to(PIPELINE)}:{node.lineno}: {ast.unparse(node)}")
    assert not offences, "\n".join(offences)


# --- addresses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ADDRESS_FORMS, ids=lambda form: form.prefix)
def test_an_address_of_each_form_is_read_sent_and_written_again(form: AddressForm) -> None:
    address = parse_address(f"{form.prefix}registry.example/team/app:1.0")
    assert is_address(str(address)) and address.form == form and address.tag == "1.0"
    assert parse_address(str(address)) == address == pickle.loads(pickle.dumps(address))
    assert address.below("x").url == f"{address.url}/x"


def test_what_is_no_address_names_every_form() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("s3://bucket/app")
    for form in ADDRESS_FORMS:
        assert form.prefix in str(caught.value)
        assert form.example in (caught.value.problems[0].hint or "")


@pytest.mark.parametrize("form", ADDRESS_FORMS, ids=lambda form: form.prefix)
def test_the_documentation_says_what_each_form_is_for(form: AddressForm) -> None:
    rows = [line for line in (ROOT / "docs" / "mirrors.md").read_text().splitlines() if line.startswith("| ")]
    assert [line for line in rows if f"`{form.prefix}" in line.rpartition(" | ")[2]], (
        f"docs/mirrors.md: give {form.prefix} a row in the table of mirrors"
    )
    assert f"\n    {form.prefix}" in (address_parser.__doc__ or "")


# --- the protocol ----------------------------------------------------------------------------------------


def test_each_kind_has_all_of_the_protocol(any_mirror: Mirror) -> None:
    """mypy says that one has not, but of a repository not what it lacks."""
    for protocol, made in ((Mirror, any_mirror), (Repository, any_mirror.repository("tiny"))):
        wanted = {name for name in vars(protocol) if not name.startswith("_")}
        missing = sorted(wanted - set(dir(made)))
        assert not missing, f"{type(made).__name__} has no {', '.join(missing)}"


def test_what_a_mirror_of_any_kind_was_given_it_holds_keeps_and_gives(any_mirror: Mirror, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    repository = any_mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    put = mirror_images.publish(repository, store, made, "1.0")
    (held,) = any_mirror.inventory().repositories
    assert (
        held.name == repository.name
        and {"1.0": put.digest}.items() <= {tag.name: tag.digest for tag in held.tags}.items()
    )
    assert {blob.digest for manifest in held.manifests for blob in manifest.blobs} >= mirror_images.blobs_of(made) - {
        put.digest
    }
    done = any_mirror.scrub(RepairSources(store), rate=0, progress=QUIET)
    assert done.findings == () and done.tags >= 1
    assert repository.resolve("1.0") == put.digest
    for digest in mirror_images.blobs_of(made) - {put.digest}:
        path = repository.file_path(digest)
        assert not path or (Path(any_mirror.url.partition(":")[2]) / path).is_file()


def test_pruning_is_carried_out_or_refused_by_its_own_code(any_mirror: Mirror, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    mirror_images.publish(any_mirror.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    try:
        done = any_mirror.prune(MirrorRules(), 1_900_000_000, dry_run=True, idle=True)
    except UsageError as error:
        assert error.code == "not-a-mirror"
    else:
        assert done.dry_run and not done.plan.tags
    with pytest.raises(UsageError) as caught:
        any_mirror.restore("20260101T000000Z.00000000")
    assert caught.value.code in {"undo-impossible", "quarantine-unknown"}
