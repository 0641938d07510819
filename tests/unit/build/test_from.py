"""Building from another recipe's image: loading, choosing, locking, composing, numbering, scripts, configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import DiffId, Digest
from pipeline.errors import BuildError, ResolutionError
from pipeline.layers.account_numbers import final_accounts, number_accounts
from pipeline.layers.transaction import plan_scripts
from pipeline.model.accounts import AccountTable
from pipeline.model.configuration import inherited
from pipeline.model.header import (
    Dependency,
    FileRecord,
    PackageHeader,
    Scriptlet,
    ScriptletPhase,
    Trigger,
    TriggerKind,
)
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.model.lock import Lock, LockedParent, LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.parent_image import (
    InstalledPackage,
    ParentImage,
    layer_in_child,
    recipe_of_layer,
)
from pipeline.model.recipe import Group, User
from pipeline.model.resolution import Chosen, Reason, Resolution
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.oci import make_image
from pipeline.recipes import load_recipe
from pipeline.resolve import (
    compare_sections,
    explain,
    format_lock,
    parse_lock,
    resolution_inputs,
    solve,
    stale_reasons,
)
from pipeline.trees import (
    STATE_NOT_INSTALLED,
    STATE_WRONG_COLOR,
    ComposeOptions,
    Composition,
    apply_layer_entries,
    compose,
)
from tests.support.recipe_folder import refused, write
from tests.support.rpmmd import Rpm
from tests.unit.resolve.test_resolve import World

ROOT = AccountTable((User("root", 0, 0, "/root", "/bin/sh"),), (Group("root", 0),))


def header(
    name: str,
    evr: str = "1-1",
    *files: FileRecord,
    requires: tuple[str, ...] = (),
    provides: tuple[str, ...] = (),
    scriptlets: tuple[Scriptlet, ...] = (),
    triggers: tuple[Trigger, ...] = (),
    arch: str = "noarch",
) -> PackageHeader:
    version, _, release = evr.partition("-")
    return PackageHeader(
        nevra=Nevra(name, 0, version, release, arch),
        checksum=Digest.of(f"{name} {evr}".encode()),
        files=files,
        scriptlets=scriptlets,
        triggers=triggers,
        provides=(Dependency(name, 8, evr), *(Dependency(one) for one in provides)),
        requires=tuple(Dependency(one) for one in requires),
        build_time=1_800_000_000,
    )


def file(path: str, content: str = "x", mode: int = 0o100644, color: int = 0) -> FileRecord:
    digest = Digest.of(content.encode()) if mode & 0o100000 else None
    return FileRecord(path, mode, "root", "root", len(content), 5, digest, color=color)


def image(name: str = "base", config: ImageConfig | None = None) -> Image:
    layers = [
        Layer(one, DiffId(Digest.of(one.encode()).hex), Descriptor("x", Digest.of(one.encode()), 1), 1)
        for one in ("base/base", "base/state")
    ]
    return make_image(name, "1", config or ImageConfig("amd64", 0), layers)


def parent(
    *headers: PackageHeader, tree: Tree | None = None, states: dict[str, tuple[int, ...]] | None = None
) -> ParentImage:
    known = states or {}
    packages = tuple(
        InstalledPackage(
            one,
            Chosen(
                Package(one.nevra, one.checksum, 1, "r", "l", one.build_time),
                "base/base",
                (Reason("requested", one.nevra.name),),
            ),
            known.get(one.nevra.name, (0,) * len(one.files)),
            1_800_000_000,
        )
        for one in headers
    )
    laid = compose([("base", list(headers))], ROOT).tree
    return ParentImage(image(), packages, tree or laid, ROOT, 1_800_000_000)


# --- loading -----------------------------------------------------------------------------------------------

BASE = (
    "name: base\nversion: '1'\nplatform: p\narchitectures: [x86_64, aarch64]\nlayers: [{name: base, packages: [a]}]\n"
)
PROGRAM = "image: {entrypoint: [/a]}\n"
CHILD = "name: child\nversion: '1'\nfrom: %s\n"
SMOKE = "smoke: {checks: [{name: a, log: a}]}\n"


def test_a_child_has_its_parents_platform_and_needs_no_layer_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, BASE + PROGRAM, "base.yaml")
    recipe = load_recipe(write(tmp_path, CHILD % "base" + SMOKE))
    assert recipe.parent is not None and recipe.parent.name == "base"
    assert (recipe.platform, recipe.architectures, recipe.layers) == ("p", ("x86_64", "aarch64"), ())
    assert recipe.sources == (tmp_path / "demo.yaml",)


def test_a_parent_is_named_by_its_path_and_by_an_included_recipe_too(tmp_path: Path) -> None:
    write(tmp_path, BASE, "lower/base.yml")
    write(tmp_path, "from: base\n", "lower/part.yaml")
    named = load_recipe(write(tmp_path, CHILD % "lower/base.yml"))
    assert named.parent is not None and named.parent.path == tmp_path / "lower/base.yml"
    included = load_recipe(write(tmp_path, "name: c\nversion: '1'\ninclude: [lower/part.yaml]\n"))
    assert included.parent is not None and included.parent.path == tmp_path / "lower/base.yml"


@pytest.mark.parametrize(
    ("files", "code", "place", "said"),
    [
        ({"demo": CHILD % "bsae"}, "from-missing", "demo.yaml:3: from", "'bsae' not found"),
        ({"demo": CHILD % "/base"}, "from-absolute", "demo.yaml:3: from", "absolute"),
        ({"demo": CHILD % "demo"}, "from-cycle", "demo.yaml:3: from", "demo.yaml → demo.yaml"),
        (
            {"demo": CHILD % "second", "second": CHILD.replace("child", "second") % "demo"},
            "from-cycle",
            "second.yaml:3: from",
            "demo.yaml → second.yaml → demo.yaml",
        ),
        ({"demo": CHILD % "base" + "platform: q\n"}, "platform-differs", "demo.yaml:4: platform", "'base'"),
        (
            {"demo": CHILD % "base" + "architectures: [s390x]\n"},
            "architectures-differ",
            "demo.yaml:4: architectures",
            "s390x",
        ),
        ({"demo": CHILD.replace("child", "base") % "base"}, "name-of-parent", "demo.yaml:1: name", "'base' is also"),
        (
            {"demo": CHILD.replace("child", "base") % "second", "second": CHILD % "base"},
            "name-of-parent",
            "demo.yaml:1: name",
            "'base' is also",
        ),
        ({"demo": CHILD % "worse", "worse": BASE + "colour: red\n"}, "key-unknown", "worse.yaml:6: colour", "colour"),
        ({"demo": CHILD % "{image: layout}"}, "type-wrong", "demo.yaml:3: from", "text is expected"),
        ({"demo": CHILD % "base" + SMOKE}, "image-without-program", "demo.yaml", "has checks, but no entrypoint"),
    ],
)
def test_what_is_wrong_with_a_parent_is_told_with_its_place(
    files: dict[str, str], code: str, place: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path, BASE, "base.yaml")
    for name, text in files.items():
        write(tmp_path, text, f"{name}.yaml")
    (problem,) = refused(tmp_path / "demo.yaml")
    assert problem.code == code and said in problem.message
    assert (problem.place or "").startswith(place)


def test_recipes_are_built_from_one_another_only_so_deep(tmp_path: Path) -> None:
    write(tmp_path, BASE, "r0.yaml")
    for number in range(1, 10):
        write(tmp_path, CHILD.replace("child", f"c{number}") % f"r{number - 1}", f"r{number}.yaml")
    assert load_recipe(tmp_path / "r8.yaml").parent is not None
    assert {problem.code for problem in refused(tmp_path / "r9.yaml")} == {"from-too-deep"}


# --- choosing ----------------------------------------------------------------------------------------------


def added(world: World, below: ParentImage, *texts: str, **more: object) -> LockSection:
    base = replace(world.recipe([]), name="base", path=world.folder / "base.yaml")
    recipe = world.recipe(list(texts), parent=base, **more)
    return solve(recipe, world.platform, "x86_64", world.opened(), store=world.store, parent=below)


def refusal(world: World, below: ParentImage, *texts: str, **more: object) -> ResolutionError:
    with pytest.raises(ResolutionError) as caught:
        added(world, below, *texts, **more)
    return caught.value


def names(section: LockSection) -> list[str]:
    return [str(one.package.nevra) for one in section.resolution.chosen]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_only_what_the_parent_lacks_is_chosen(world: World) -> None:
    world.add("r", Rpm("a", requires=("b", "/opt/tool", "virtual", "c")), Rpm("b", "2-1"), Rpm("c"), Rpm("tool", "9-1"))
    below = parent(header("b"), header("tool", "1-1", file("/opt/tool")), header("other", provides=("virtual",)))
    section = added(world, below, "a")
    assert names(section) == ["a-1-1.noarch", "c-1-1.noarch"]
    assert section.resolution.order == ("c-1-1.noarch", "a-1-1.noarch")
    assert section.parent == LockedParent("base", below.digest, below.config)
    assert section.build_time == 1_800_000_000


def test_a_request_that_the_parent_satisfies_asks_for_nothing_however_old_it_is(world: World) -> None:
    world.add("r", Rpm("b", "2-1"), Rpm("bb", "1-1"))
    assert names(added(world, parent(header("b")), "b")) == []
    assert names(added(world, parent(header("b")), "b*")) == ["bb-1-1.noarch"]
    assert names(added(world, parent(header("b")), "b = 1-1")) == []


@pytest.mark.parametrize(
    ("wanted", "said", "hint"),
    [
        ("b >= 2", "b-1-1.noarch and b-2-1.noarch cannot both be installed", "'b >= 2-1'"),
        ("needs", "needs-1-1.noarch requires b >= 2", "'b >= 2-1'"),
        ("enemy", "enemy-1-1.noarch conflicts with b", "without b-1-1.noarch"),
        ("heir", "heir-1-1.noarch obsoletes b < 3, which is b-1-1.noarch", "without b-1-1.noarch"),
    ],
)
def test_what_would_change_the_parent_says_what_to_rebuild_it_with(
    wanted: str, said: str, hint: str, world: World
) -> None:
    world.add(
        "r",
        Rpm("b", "2-1"),
        Rpm("needs", requires=("b >= 2",)),
        Rpm("enemy", conflicts=("b",)),
        Rpm("heir", obsoletes=("b < 3",)),
    )
    error = refusal(world, parent(header("b")), wanted)
    assert error.code == "parent-fixed"
    assert "on top of the parent image 'base'" in str(error) and said in str(error)
    assert hint in (error.problems[0].hint or "")
    assert error.problems[0].place == f"r.yaml:0.{wanted}"


def test_excludes_and_pins_do_not_reach_into_the_parent(world: World) -> None:
    world.add("r", Rpm("a", requires=("b",)), Rpm("b", "2-1"))
    assert names(added(world, parent(header("b")), "a", excludes=("b",))) == ["a-1-1.noarch"]
    assert names(added(world, parent(header("b")), "a", pins=(("b", "1"),))) == ["a-1-1.noarch"]
    error = refusal(world, parent(header("b")), "a", pins=(("b", "2"),))
    assert error.code == "parent-fixed" and "has b-1-1.noarch" in str(error)


def test_what_the_parent_took_on_trust_stays_so_and_more_can_be(world: World) -> None:
    world.add("r", Rpm("a", requires=("b", "systemd")), Rpm("c", requires=("systemd",)))
    below = parent(header("b", requires=("nowhere",)))
    section = added(world, below, "a", assume_installed=("systemd",))
    assert names(section) == ["a-1-1.noarch"] and section.resolution.assumed == ("systemd",)
    assert refusal(world, below, "c").code == "requirement-missing"


def test_explain_tells_of_the_parent(world: World) -> None:
    world.add("r", Rpm("a", requires=("b",)))
    below = parent(header("b"))
    every = [*added(world, below, "a").resolution.chosen, *(one.chosen for one in below.packages)]
    assert explain(every, "b").splitlines() == [
        "b-1-1.noarch (layer base/base, repository r)",
        "  from the parent image 'base':",
        "  the recipe 'base' asks for 'b'",
    ]
    assert explain(every, "a").splitlines()[1] == "  the recipe asks for 'a'"


# --- the lock ----------------------------------------------------------------------------------------------


def section(below: Digest | None) -> LockSection:
    return LockSection(
        Resolution("p", "x86_64", (), ()), (("requests", Digest.of(b"r")),), 1,
        parent=LockedParent("base", below, Digest.of(b"config")) if below else None,
    )  # fmt: skip


def test_a_lock_names_the_parent_and_has_a_form_of_its_own_only_then() -> None:
    lock = Lock("child", (section(Digest.of(b"base")),))
    text = format_lock(lock)
    assert parse_lock(text, "child.lock") == lock
    assert "format = 3" in text and f'[section.parent]\n"recipe" = "base"\n"digest" = "{Digest.of(b"base")}"\n' in text
    assert "format = 2" in format_lock(Lock("child", (section(None),)))


@pytest.mark.parametrize("inner", ['"recipe" = 1\n"digest" = "%s"', '"recipe" = "b"\n"digest" = "x"', '"recipe" = "b"'])
def test_a_malformed_parent_is_refused(inner: str) -> None:
    text = format_lock(Lock("child", (section(Digest.of(b"base")),)))
    known = f'"recipe" = "base"\n"digest" = "{Digest.of(b"base")}"'
    assert known in text
    with pytest.raises(ResolutionError, match="the lock cannot be read"):
        parse_lock(text.replace(known, inner.replace("%s", str(Digest.of(b"base")))), "child.lock")


def test_another_parent_is_a_reason_to_lock_again(world: World) -> None:
    recipe, one, two = world.recipe(["a"]), Digest.of(b"1"), Digest.of(b"2")

    def now(below: Digest | None) -> tuple[tuple[str, Digest], ...]:
        return resolution_inputs(recipe, world.platform, "x86_64", (), parent=below)

    locked = replace(section(one), inputs=now(one))
    assert stale_reasons(locked, now(one)) == ()
    assert stale_reasons(locked, now(two)) == (f"the parent image changed (config {one} → {two})",)
    assert stale_reasons(locked, now(None)) == (f"the parent image changed (config {one} → none)",)
    assert compare_sections(section(one), section(two)) == (f"~ parent base {one} → base {two}",)
    assert compare_sections(None, section(two)) == (f"+ parent base {two}",)


# --- composing ---------------------------------------------------------------------------------------------


def laid(below: ParentImage, *headers: PackageHeader) -> Composition:
    return compose([("more", list(headers))], ROOT, ComposeOptions(below=below.tree, installed=below.packages))


def emitted(composition: Composition) -> list[str]:
    return [entry.path for layer in composition.layers for part in layer.parts for _, entry in part.entries]


def test_a_file_that_a_parents_script_changed_is_shared_and_stays_changed() -> None:
    low = header("low", "1-1", file("/etc/a"))
    changed = apply_layer_entries(
        parent(low).tree, [Entry("etc/a", EntryKind.FILE, mode=0o600, content=Digest.of(b"changed"))]
    )
    composition = laid(parent(low, tree=changed), header("high", "1-1", file("/etc/a"), file("/etc/b")))
    assert emitted(composition) == ["etc/b"]
    entry = composition.tree.entries["etc/a"]
    assert (entry.mode, entry.content, entry.owner) == (0o600, Digest.of(b"changed"), "low-1-1.noarch")


def test_directories_have_the_mode_and_owner_that_they_have_in_the_parent() -> None:
    low = header("low", "1-1", file("/etc", mode=0o040755))
    changed = apply_layer_entries(parent(low).tree, [Entry("etc", EntryKind.DIRECTORY, mode=0o700, uid=7)])
    (layer,) = laid(parent(low, tree=changed), header("high", "1-1", file("/etc/b"))).layers
    assert [(one.path, one.mode, one.uid) for one in layer.directories] == [("etc", 0o700, 7)]


def test_what_the_parent_removed_is_brought_again_by_who_has_it() -> None:
    low = header("low", "1-1", file("/etc/a"), file("/etc/b"))
    gone = apply_layer_entries(parent(low).tree, [Entry("etc/a", EntryKind.WHITEOUT)])
    below = parent(low, tree=gone, states={"low": (STATE_NOT_INSTALLED, 0)})
    composition = laid(below, header("high", "1-1", file("/etc/a", "other"), file("/etc/b")))
    assert emitted(composition) == ["etc/a"]
    assert composition.states["low-1-1.noarch"] == (STATE_NOT_INSTALLED, 0)


@pytest.mark.parametrize("other", [file("/etc/a", "y"), file("/etc/a", mode=0o100600)])
def test_a_different_file_of_the_parents_packages_is_a_conflict(other: FileRecord) -> None:
    with pytest.raises(BuildError, match=r"low-1-1\.noarch of the parent image and in high-1-1\.noarch") as caught:
        laid(parent(header("low", "1-1", file("/etc/a"))), header("high", "1-1", other))
    assert caught.value.code == "file-conflict"


def test_a_directory_cannot_take_the_place_of_what_is_none_in_the_parent() -> None:
    low = header("low", "1-1", file("/etc/b"))
    made = apply_layer_entries(parent(low).tree, [Entry("srv", EntryKind.SYMLINK, mode=0o777, link="etc")])
    with pytest.raises(BuildError, match="a directory in high") as caught:
        laid(parent(low, tree=made), header("high", "1-1", file("/srv", mode=0o040755)))
    assert caught.value.code == "file-conflict"


def test_of_two_colours_the_preferred_one_wins_also_over_the_parent() -> None:
    thin, wide = file("/usr/bin/x", "32", 0o100755, 1), file("/usr/bin/x", "64", 0o100755, 2)
    below = parent(header("x", "1-1", thin, arch="i686"))
    composition = laid(below, header("x", "1-1", wide, arch="x86_64"))
    assert emitted(composition) == ["usr/bin/x"]
    assert composition.states["x-1-1.i686"] == (STATE_WRONG_COLOR,)
    below = parent(header("x", "1-1", wide, arch="x86_64"))
    composition = laid(below, header("x", "1-1", thin, arch="i686"))
    assert emitted(composition) == []
    assert composition.states["x-1-1.i686"] == (STATE_WRONG_COLOR,)


def test_layers_are_stacked_as_an_overlay_shows_them() -> None:
    lower = Tree.of(
        {
            path: Entry(path, kind, owner="p")
            for path, kind in (
                ("d", EntryKind.DIRECTORY), ("d/a", EntryKind.FILE), ("e", EntryKind.DIRECTORY),
                ("e/a", EntryKind.FILE), ("f", EntryKind.FILE),
                ("g", EntryKind.DIRECTORY), ("g/a", EntryKind.FILE),
            )
        }
    )  # fmt: skip
    upper = [
        Entry("d", EntryKind.DIRECTORY),
        Entry("d", EntryKind.OPAQUE),
        Entry("d/b", EntryKind.FILE),
        Entry("e", EntryKind.WHITEOUT),
        Entry("f", EntryKind.FILE, mode=5),
        Entry("g", EntryKind.SYMLINK, link="f"),
    ]
    tree = apply_layer_entries(lower, upper)
    assert list(tree.entries) == ["d", "d/b", "f", "g"]
    assert (tree.entries["f"].owner, tree.entries["f"].mode) == ("p", 5)
    assert tree.entries["g"].owner == tree.entries["d/b"].owner == ""


# --- accounts ----------------------------------------------------------------------------------------------


def numbered(
    below: AccountTable, *users: User, groups: tuple[Group, ...] = (), wants: tuple[str, ...] = ()
) -> AccountTable:
    one = header("p", provides=tuple(f"user({name})" for name in wants))
    return number_accounts([one], users=users, groups=groups, read=lambda *_: {}, kept=(), parent=below)[0]


def test_the_parents_numbers_hold_and_new_accounts_get_free_ones() -> None:
    below = final_accounts(ROOT, "root:x:0:0::/:/bin/sh\nsrv:x:999:50:S:/srv:/bin/sh\n", "root:x:0:\nsrv:x:50:\n")
    table = numbered(below, wants=("srv", "new"))
    assert (table.uid("srv"), table.gid("srv"), table.uid("new")) == (999, 50, 998)
    assert next(user for user in table.users if user.name == "srv") == User("srv", 999, 50, "/srv", "/bin/sh", "S")


@pytest.mark.parametrize(
    ("users", "groups"),
    [((User("srv", 7),), ()), ((User("srv", 999, 7),), ()), ((), (Group("srv", 7),))],
)
def test_a_recipe_cannot_renumber_the_parents_accounts(users: tuple[User, ...], groups: tuple[Group, ...]) -> None:
    below = AccountTable((*ROOT.users, User("srv", 999, 50)), (*ROOT.groups, Group("srv", 50)))
    assert numbered(below, User("srv", 999, 50), groups=(Group("srv", 50),)).uid("srv") == 999
    with pytest.raises(BuildError, match="in the parent image") as caught:
        numbered(below, *users, groups=groups)
    assert caught.value.code == "account-differs"


# --- scripts -----------------------------------------------------------------------------------------------


def test_scriptlets_are_the_childs_and_triggers_are_everybodys() -> None:
    def trigger(kind: TriggerKind, on: str) -> Trigger:
        return Trigger(kind, ("sh",), "", (Dependency(on),))

    low = header(
        "low",
        scriptlets=(Scriptlet(ScriptletPhase.POST, ("sh",), ""),),
        triggers=(
            trigger(TriggerKind.IN, "high"),
            trigger(TriggerKind.FILE_IN, "/f"),
            trigger(TriggerKind.TRANSACTION_FILE_IN, "/f"),
        ),
    )
    high = header(
        "high",
        scriptlets=(Scriptlet(ScriptletPhase.POST, ("sh",), ""),),
        triggers=(trigger(TriggerKind.IN, "low"), trigger(TriggerKind.TRANSACTION_FILE_IN, "/f")),
    )
    present = {"low-1-1.noarch": ("/f/low",), "high-1-1.noarch": ("/f/high",)}
    steps = plan_scripts([high], present=present, compare=lambda a, b: 0, below=[low])
    assert [(step.label.replace("-1-1.noarch", ""), step.arguments, step.input) for step in steps] == [
        ("%filetriggerin of low", ("0", "0"), b"/f/high\n"),
        ("%post of high", ("1",), b""),
        ("%triggerin on high of low", ("1", "1"), b""),
        ("%triggerin on low of high", ("1", "1"), b""),
        ("%transfiletriggerin of low", ("0", "0"), b"/f/high\n"),
        ("%transfiletriggerin of high", ("0", "0"), b"/f/low\n/f/high\n"),
    ]


def test_a_second_package_of_a_name_is_told_that_there_are_two() -> None:
    second = header("kernel", "2-1", scriptlets=(Scriptlet(ScriptletPhase.POST, ("sh",), ""),))
    (step,) = plan_scripts([second], present={}, compare=lambda a, b: 0, below=[header("kernel")])
    assert step.arguments == ("2",)


# --- configuration -----------------------------------------------------------------------------------------


def test_what_is_given_wins_and_what_is_left_out_is_the_parents() -> None:
    below = ImageConfig(
        "amd64", 1, entrypoint=("a",), command=("b",), user="u", environment=("A=1", "B=1"), exposed_ports=("1/tcp",),
        volumes=("/v",), stop_signal="SIGQUIT", labels=(("k", "1"), ("l", "1")),
    )  # fmt: skip
    own = ImageConfig("amd64", 2, environment=("B=2",), labels=(("l", "2"),))
    found = inherited(own, {"volumes"}, below)
    assert replace(found, labels=()) == replace(below, created=2, environment=("A=1", "B=2"), volumes=(), labels=())
    assert dict(found.labels) == {"k": "1", "l": "2"}


def test_a_command_goes_with_its_entrypoint() -> None:
    base = ImageConfig("amd64", 1, entrypoint=("a",), command=("b",))
    found = inherited(ImageConfig("amd64", 1, entrypoint=("c",)), {"entrypoint"}, base)
    assert (found.entrypoint, found.command) == (("c",), ())
    found = inherited(ImageConfig("amd64", 1, command=("d",)), {"command"}, base)
    assert (found.entrypoint, found.command) == (("a",), ("d",))


def test_a_layer_keeps_the_name_of_the_recipe_that_made_it() -> None:
    assert layer_in_child("state", "base") == "base/state"
    assert layer_in_child("base/state", "child") == "base/state"
    assert (recipe_of_layer("base/state"), recipe_of_layer("state")) == ("base", None)
