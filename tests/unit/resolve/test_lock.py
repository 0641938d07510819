"""The lock: its file, what it depends on, and what is done about it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import ResolutionError
from pipeline.model.lock import Lock, LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.platform import PackageRepository, Platform, RepositoryAccess, SecretReference
from pipeline.model.recipe import LayerPlan, LocalPackage, Recipe, Request
from pipeline.model.resolution import Chosen, Reason, Resolution
from pipeline.repos import RepositoryKey
from pipeline.resolve import (
    LockAction,
    LockMode,
    compare_sections,
    decide_action,
    format_lock,
    lock_path,
    other_versions,
    parse_lock,
    read_lock,
    resolution_inputs,
    stale_reasons,
    write_lock,
)

# --- the file ------------------------------------------------------------------------------------

words = st.text("abcdefgxyz0123456789_+~^", min_size=1, max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(0, 2**63 - 1)
times = st.integers(0, 2**32 - 1)
account_numbers = st.integers(0, 2**32 - 2)
digests = st.binary(min_size=32, max_size=32).map(lambda data: Digest(data.hex()))
nevras = st.builds(Nevra, words, st.integers(0, 3), words, words, st.sampled_from(["noarch", "x86_64", "i686"]))


@st.composite
def sections(draw: st.DrawFn) -> LockSection:
    names = sorted(draw(st.lists(nevras, unique=True, max_size=6)))
    reasons = st.builds(Reason, st.sampled_from(["requested", "local"]), texts, texts)
    if names:  # all other kinds name a package of the same resolution
        kinds = st.sampled_from(["requires", "recommends", "supplements"])
        reasons |= st.builds(Reason, kinds, st.sampled_from([str(name) for name in names]), texts)
    chosen = tuple(
        Chosen(
            Package(name, draw(digests), draw(numbers), draw(words), draw(texts), draw(times), draw(texts)),
            draw(words),
            tuple(draw(st.lists(reasons, max_size=3))),
        )
        for name in names
    )
    order = tuple(draw(st.permutations([str(name) for name in names])))
    inputs_ = draw(st.dictionaries(texts, digests, max_size=3))
    accounts = draw(st.lists(st.tuples(st.sampled_from(["user", "group"]), words, account_numbers), max_size=3))
    return LockSection(
        Resolution(draw(words), draw(words), chosen, order, tuple(draw(st.lists(texts, max_size=2))),
                   tuple(draw(st.lists(texts, max_size=2)))),
        tuple(inputs_.items()),
        draw(times),
        tuple(accounts),
        tuple(draw(st.dictionaries(texts, texts, max_size=2)).items()),
        tuple(draw(st.lists(texts, max_size=2))),
        tuple(draw(st.dictionaries(words, digests, max_size=2)).items()),
    )  # fmt: skip


def _place(section: LockSection) -> tuple[str, str]:
    return section.resolution.platform, section.resolution.arch


locks = st.builds(
    lambda recipe, found: Lock(recipe, tuple(sorted(found, key=_place))),
    texts,
    st.lists(sections(), max_size=3, unique_by=_place),
)


@given(locks)
def test_what_is_written_is_read_again(lock: Lock) -> None:
    text = format_lock(lock)
    assert parse_lock(text, "l") == lock
    assert format_lock(parse_lock(text, "l")) == text


def chosen(text: str, layer: str = "base", *, sum_: str = "0", reasons: tuple[Reason, ...] = ()) -> Chosen:
    package = Package(Nevra.parse(text), Digest(sum_ * 64), 10, "r", f"{text}.rpm", 5)
    return Chosen(package, layer, reasons or (Reason("requested", "x"),))


def section(*packages: Chosen, **more: object) -> LockSection:
    order = tuple(str(one.package.nevra) for one in packages)
    resolution = Resolution("local", "x86_64", tuple(sorted(packages, key=lambda c: c.package)), order)
    return replace(LockSection(resolution, (), 5), **more)  # type: ignore[arg-type]


def test_an_update_of_one_package_changes_its_line_and_the_digest() -> None:
    needs = (Reason("requires", "a-1-1.noarch", "b >= 1"),)
    newer = (Reason("requires", "a-2-1.noarch", "b >= 1"),)
    before = format_lock(Lock("r", (section(chosen("a-1-1.noarch"), chosen("b-1-1.noarch", reasons=needs)),)))
    after = format_lock(Lock("r", (section(chosen("a-2-1.noarch"), chosen("b-1-1.noarch", reasons=newer)),)))
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert [line.partition(" = ")[0] for line, _ in changed] == ["digest", "  { nevra"]


def test_two_versions_of_one_package_are_told_apart() -> None:
    needs = (Reason("requires", "a-1-1.noarch", "b"),)
    lock = Lock("r", (section(chosen("a-1-1.noarch"), chosen("a-2-1.noarch"), chosen("b-1-1.noarch", reasons=needs)),))
    assert parse_lock(format_lock(lock), "l") == lock


def test_a_lock_stands_beside_its_recipe_and_is_replaced_whole(tmp_path: Path) -> None:
    path = lock_path(tmp_path / "mysql.yaml")
    assert path == tmp_path / "mysql.lock"
    assert read_lock(path) is None
    for lock in (Lock("mysql", ()), Lock("mysql", (section(chosen("a-1-1.noarch")),))):
        write_lock(path, lock)
        assert read_lock(path) == lock
    assert [one.name for one in tmp_path.iterdir()] == ["mysql.lock"]
    assert path.stat().st_mode & 0o777 == 0o644


GOOD = format_lock(Lock("r", (section(chosen("a-1-1.noarch"), inputs=(("requests", Digest("1" * 64)),)),)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('recipe = "r"', ""),
        ('recipe = "r"', "recipe = 3"),
        ("format = 2", "format = 0"),
        ("format = 2", "format = true"),
        ("size = 10", "size = -10"),
        ("size = 10", "size = 1.5"),
        ('nevra = "a-1-1.noarch"', 'nevra = "a"'),
        ("0" * 64, "0" * 63),
        ("sha256:" + "1" * 64, "md5:" + "1" * 32),
        ("order = [", 'order = [\n  "b",'),
        ('why = [["requested", "x"]]', 'why = [["requested"]]'),
        ('why = [["requested", "x"]]', 'why = "requested"'),
        ("[[section]]", "[section]"),
        ("[[section]]", "[[section"),
        ("accounts = []", 'accounts = [{ kind = "robot", name = "x", number = 1 }]'),
        ("accounts = []", 'accounts = [{ kind = "user", name = "x", number = 4294967295 }]'),
        ("accounts = []", 'accounts = [{ kind = "user", name = "x", number = 99999999999 }]'),
        ("accounts = []", 'accounts = [{ kind = "user", name = "x", number = -1 }]'),
        ("\nbuild_time = 5", "\nbuild_time = 4294967296"),
        ("\nbuild_time = 5", "\nbuild_time = 9223372036854775807"),
        (" build_time = 5", " build_time = 4294967296"),
        ('digest = "sha256:', 'digest = "md5:'),
        ('digest = "sha256:', "digest = 3 #"),
    ],
)
def test_a_lock_that_is_not_understood_is_refused(before: str, after: str) -> None:
    assert before in GOOD
    with pytest.raises(ResolutionError) as caught:
        parse_lock(GOOD.replace(before, after), "mysql.lock")
    assert caught.value.code == "lock-malformed"
    assert "mysql.lock" in str(caught.value)


def test_a_number_out_of_bounds_is_told_with_its_place_and_the_bound() -> None:
    wrong = GOOD.replace("accounts = []", 'accounts = [{ kind = "user", name = "x", number = 4294967295 }]')
    with pytest.raises(ResolutionError) as caught:
        parse_lock(wrong, "mysql.lock")
    (problem,) = caught.value.problems
    assert problem.place == "mysql.lock, section 1, accounts 1"
    assert "'number' is not a whole number of 0 to 4294967294" in problem.message
    assert "`relbuild lock`" in str(problem.hint)


TWO = section(chosen("a-1-1.noarch"), chosen("b-1-1.noarch"), accounts=(("user", "x", 9),))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: re.sub(r'  \{ nevra = "b-.*\n|  "b",\n', "", text),
        lambda text: text.replace('layer = "base"', 'layer = "bsae"', 1),
        lambda text: text.replace("number = 9", "number = 0"),
        lambda text: text.replace("\nbuild_time = 5", "\nbuild_time = 6"),
        lambda text: re.sub(r'digest = "sha256:.*"', f'digest = "{Digest("0" * 64)}"', text),
        lambda text: text.replace('  "a",\n  "b",', '  "b",\n  "a",'),
    ],
)
def test_a_section_that_was_changed_after_it_was_written_is_stale(change: Callable[[str], str]) -> None:
    text = format_lock(Lock("r", (TWO,)))
    changed = change(text)
    assert changed != text
    (read,) = parse_lock(changed, "r.lock").sections
    assert read.written_as is not None
    assert stale_reasons(read, ()) == ("it was changed after it was written, by hand or by a merge",)
    again = format_lock(parse_lock(changed, "l"))
    assert parse_lock(again, "l").sections == (read,), "written with another section, it is not taken for unchanged"


def test_layout_and_comments_of_a_lock_are_no_change() -> None:
    text = format_lock(Lock("r", (TWO,)))
    other = text.replace("\n", "\r\n").replace("[[section]]", "# merged\r\n\r\n[[section]]").replace(" = ", "  =  ")
    assert parse_lock(other, "l") == Lock("r", (TWO,))


def test_a_lock_from_before_sections_had_a_digest_stays_as_it_is() -> None:
    text = re.sub(r'\ndigest = "sha256:.*', "", format_lock(Lock("r", (TWO,))))
    assert "digest" not in text and parse_lock(text, "l") == Lock("r", (TWO,))


def test_packages_in_a_layer_that_the_recipe_does_not_have_make_a_lock_stale(tmp_path: Path) -> None:
    plain = recipe(tmp_path)
    assert stale_reasons(section(chosen("a-1-1.noarch")), (), plain) == ()
    misspelled = section(chosen("a-1-1.noarch"), chosen("b-1-1.noarch", "bsae"))
    (reason,) = stale_reasons(misspelled, (), plain)
    assert reason == "it has packages in a layer 'bsae', which the recipe does not have"
    auto = replace(plain, layers=(replace(plain.layers[0], at_most=3),))
    assert stale_reasons(section(chosen("a-1-1.noarch", "base-2")), (), auto) == ()
    assert stale_reasons(section(chosen("a-1-1.noarch")), (), auto) != ()


def test_a_section_may_not_be_there_twice() -> None:
    body = GOOD[GOOD.index("[[section]]") :]
    with pytest.raises(ResolutionError, match="two sections"):
        parse_lock(GOOD + body, "l")


def test_a_newer_format_is_named() -> None:
    with pytest.raises(ResolutionError) as caught:
        parse_lock("format = 999", "l")
    assert caught.value.code == "lock-newer-format"


def test_a_lock_of_the_first_format_is_read_and_says_nothing_of_metadata() -> None:
    known = section(chosen("a-1-1.noarch"), metadata=(("base", Digest("7" * 64)),))
    text = format_lock(Lock("r", (known,)))
    older = re.sub(r"\n\[section.metadata\]\n.*\n|\ndigest = .*", "", text).replace("format = 2", "format = 1")
    assert "metadata" in text and "metadata" not in older
    assert parse_lock(older, "l") == Lock("r", (replace(known, metadata=()),))
    with pytest.raises(ResolutionError, match="'metadata' is missing"):
        parse_lock(older.replace("format = 1", "format = 2"), "l")


@given(st.text(max_size=200))
def test_rubbish_is_an_error_and_never_a_crash(text: str) -> None:
    with pytest.raises(ResolutionError):
        parse_lock(text, "l")


# --- what it depends on --------------------------------------------------------------------------

PLATFORM = Platform(
    "local",
    (PackageRepository("base", baseurls=("file://$m/base",), keys=("$m/KEY",)),),
    variables=(("m", "${RELBUILD_VAR_M:-~/m}"),),
)
KEYS = (RepositoryKey("base", "F" * 40, b"armored"),)


def recipe(tmp_path: Path, **more: object) -> Recipe:
    path = tmp_path / "mysql.yaml"
    included = tmp_path / "base.yaml"
    for one in (path, included):
        if not one.exists():
            one.write_text("x: 1\n")
    layers = (LayerPlan("base", (Request("bash", "base.yaml:2"), Request("glibc", "base.yaml:3"))),)
    plain = Recipe("mysql", path, "1", "local", ("x86_64",), layers, sources=(path, included))
    return replace(plain, **more)  # type: ignore[arg-type]


def test_what_says_nothing_about_packages_leaves_a_lock_fresh(tmp_path: Path) -> None:
    now = resolution_inputs(recipe(tmp_path), PLATFORM, "x86_64", KEYS)
    same = recipe(
        tmp_path,
        version="2",
        values=(("port", 1),),
        layers=(LayerPlan("base", (Request("glibc", "base.yaml:9"), Request("bash", "base.yaml:8")), docs=False),),
    )
    (tmp_path / "mysql.yaml").write_text("# a comment\nx: 1\n")
    assert resolution_inputs(same, PLATFORM, "x86_64", KEYS) == now
    assert stale_reasons(section(inputs=now), now) == ()


def test_another_folder_leaves_a_lock_fresh(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert resolution_inputs(recipe(tmp_path / "a"), PLATFORM, "x86_64", KEYS) == resolution_inputs(
        recipe(tmp_path / "b"), PLATFORM, "x86_64", KEYS
    )


def _other_layers(text: str = "zlib", name: str = "base") -> dict[str, object]:
    return {"layers": (LayerPlan(name, (Request("bash", "p"), Request(text, "p"))),)}


LOCAL = LocalPackage(Path("fix.rpm"), Digest("2" * 64), "p")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_other_layers(), "the requested packages"),
        (_other_layers("glibc", "other"), "the requested packages"),
        (
            {"layers": (LayerPlan("base", (Request("bash", "p"), Request("glibc", "p")), (LOCAL,)),)},
            "requested packages",
        ),
        ({"weak_dependencies": True}, "settings"),
        ({"excludes": ("a*",)}, "settings"),
        ({"pins": (("a", "1"),)}, "settings"),
        ({"assume_installed": ("systemd",)}, "settings"),
        ({"modules": ("nginx:1.24",)}, "settings"),
    ],
)
def test_every_input_makes_a_lock_stale_and_is_named(tmp_path: Path, change: dict[str, object], what: str) -> None:
    before = resolution_inputs(recipe(tmp_path), PLATFORM, "x86_64", KEYS)
    (reason,) = stale_reasons(
        section(inputs=before), resolution_inputs(recipe(tmp_path, **change), PLATFORM, "x86_64", KEYS)
    )
    assert what in reason


def test_an_included_recipe_repositories_keys_and_architecture_make_a_lock_stale(tmp_path: Path) -> None:
    before = section(inputs=resolution_inputs(recipe(tmp_path), PLATFORM, "x86_64", KEYS))

    def why(platform: Platform = PLATFORM, arch: str = "x86_64", keys: tuple[RepositoryKey, ...] = KEYS) -> str:
        (reason,) = stale_reasons(before, resolution_inputs(recipe(tmp_path), platform, arch, keys))
        return reason

    assert "requested packages" in why(arch="aarch64")
    assert "keys" in why(keys=(RepositoryKey("base", "E" * 40, b"armored"),))
    assert "keys" in why(keys=(RepositoryKey("base", "F" * 40, b"renewed"),))
    assert "repositories" in why(replace(PLATFORM, variables=(("m", "/srv"),)))
    for field, value in {
        "priority": 1,
        "cost": 1,
        "signed_metadata": True,
        "exclude": ("a",),
        "accept": ("sha1",),
    }.items():
        changed = replace(PLATFORM.repositories[0], **{field: value})  # type: ignore[arg-type]
        assert "repositories" in why(replace(PLATFORM, repositories=(changed,)))
    (tmp_path / "base.yaml").write_text("y: 2\n")
    assert "included" in why()


def test_other_versions_are_reported_and_do_not_make_a_lock_stale() -> None:
    old = section(versions=(("solv", "0.1"),))
    assert stale_reasons(old, ()) == ()
    assert [line.split()[:3] for line in other_versions(old)] == [["solv", "was", "0.1"]]


def test_other_metadata_makes_no_lock_stale(tmp_path: Path) -> None:
    now = resolution_inputs(recipe(tmp_path), PLATFORM, "x86_64", KEYS)
    assert stale_reasons(section(inputs=now, metadata=(("base", Digest("7" * 64)),)), now) == ()
    elsewhere = replace(PLATFORM, sources=PLATFORM.repositories)
    assert resolution_inputs(recipe(tmp_path), elsewhere, "x86_64", KEYS) == now, "nothing is resolved from sources"


# --- what is done about it -----------------------------------------------------------------------


def test_every_state_of_a_lock_has_one_answer_in_every_mode() -> None:
    states = {"absent": (None, ()), "fresh": (section(), ()), "stale": (section(), ("it changed",))}
    answers = {}
    for (state, (found, why)), mode in itertools.product(states.items(), LockMode):
        try:
            answers[state, mode] = decide_action(found, why, mode, Path("mysql.lock")).name
        except ResolutionError as error:
            answers[state, mode] = error.code
    resolve, use = LockAction.RESOLVE.name, LockAction.USE.name
    assert answers == {
        ("absent", LockMode.DEFAULT): resolve,
        ("absent", LockMode.LOCKED): "lock-missing",
        ("absent", LockMode.UPGRADE): resolve,
        ("fresh", LockMode.DEFAULT): use,
        ("fresh", LockMode.LOCKED): use,
        ("fresh", LockMode.UPGRADE): resolve,
        ("stale", LockMode.DEFAULT): resolve,
        ("stale", LockMode.LOCKED): "lock-stale",
        ("stale", LockMode.UPGRADE): resolve,
    }


def test_a_stale_lock_says_what_differs() -> None:
    with pytest.raises(ResolutionError, match="the keys have changed"):
        decide_action(section(), ["the keys have changed"], LockMode.LOCKED, Path("mysql.lock"))


def test_changes_are_told_a_line_for_each_package() -> None:
    old = section(
        chosen("a-1-1.noarch"), chosen("b-1:1-1.noarch"), chosen("c-1-1.noarch"), chosen("d-1-1.noarch"),
        chosen("e-1.9-1.noarch"), chosen("f-1-1.noarch"),
    )  # fmt: skip
    new = section(
        chosen("b-2-1.noarch"), chosen("c-1-1.noarch", "product"), chosen("d-1-1.noarch", sum_="1"),
        chosen("e-1.10-1.noarch"), chosen("f-1-1.noarch"), chosen("g-1-1.noarch", "product"),
    )  # fmt: skip
    assert compare_sections(old, new) == (
        "- a 1-1",
        "~ b 1:1-1 → 2-1 downgraded",
        "~ c moves from layer base to product",
        "~ d 1-1 has another checksum under the same version",
        "~ e 1.9-1 → 1.10-1 upgraded",
        "+ g 1-1 (product)",
    )
    assert compare_sections(new, new) == ()
    assert compare_sections(None, section(chosen("a-1-1.noarch"))) == ("+ a 1-1 (base)",)


def test_how_a_repository_is_reached_is_no_input_and_what_of_it_counts_is(tmp_path: Path) -> None:
    before = resolution_inputs(recipe(tmp_path), PLATFORM, "x86_64", KEYS)

    def changed(**more: object) -> bool:
        repositories = tuple(replace(one, **more) for one in PLATFORM.repositories)  # type: ignore[arg-type]
        platform = replace(PLATFORM, repositories=repositories)
        return resolution_inputs(recipe(tmp_path), platform, "x86_64", KEYS) != before

    secret = SecretReference(environment="RELBUILD_SECRET_X")
    assert not changed(
        access=RepositoryAccess(sslclientcert="/c.pem", username="me", password=secret, proxy="http://p")
    )
    assert changed(include=("a*",)) and changed(module_hotfixes=True)
    assert not changed(include=(), module_hotfixes=False)
