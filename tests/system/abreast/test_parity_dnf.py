"""What dnf would install is what relbuild chooses: for the recipes, for random requests to the development
mirror, and for random repositories full of everything that a dependency can be.

dnf itself is asked, by tests/support/dnf_solve.py under the system's Python. A refusal by one must be a refusal
by the other. Seeds are printed; RELBUILD_PARITY_SEED sets the first.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import solv

from pipeline.digest import digest_file
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.recipe import LayerPlan, LocalPackage, Recipe, Request
from pipeline.recipes import load_platforms, load_recipe
from pipeline.resolve.pool import PackagePool
from tests.support.dnf_parity import ARCH, SEED, Ours, artifact, compared, dnf, module_document
from tests.support.rpmmd import Rpm, write_repository
from tests.support.sampling import SOAK
from tests.system.conftest import MIRROR, ROOT


@pytest.fixture
def mirror(tmp_path: Path) -> Ours:
    platform = load_platforms(ROOT / "recipes/repositories.yaml")["local"]
    return Ours(tmp_path, platform, {"HOME": str(Path.home()), "RELBUILD_MIRROR": str(MIRROR)})


MIRRORED = {name: {"url": (MIRROR / name).as_uri()} for name in ("base", "updates")}


def test_every_recipe_comes_to_what_dnf_would_install(mirror: Ours, tmp_path: Path) -> None:
    recipes = [load_recipe(path) for path in sorted((ROOT / "recipes").glob("*.yaml")) if path.stem not in NO_RECIPES]
    recipes = [recipe for recipe in recipes if recipe.platform == "local"]
    assert len(recipes) >= 10
    sets = [[request.text for layer in recipe.layers for request in layer.requests] for recipe in recipes]
    solved = compared(sets, dnf(tmp_path, MIRRORED, sets), [mirror.solve(recipe) for recipe in recipes])
    assert solved == len(recipes)


NO_RECIPES = ("repositories", "base")


def test_the_command_line_of_dnf_says_the_same_as_its_library(mirror: Ours, tmp_path: Path) -> None:
    asked = ["bash", "nginx", "/usr/bin/redis-server"]
    command = ["dnf", f"--installroot={tmp_path / 'root'}", "--setopt=reposdir=/dev/null", "--releasever=1"]
    command += [f"--setopt=cachedir={tmp_path / 'cache'}", f"--setopt=logdir={tmp_path}"]
    command += [f"--repofrompath={name},{one['url']}" for name, one in MIRRORED.items()]
    command += [
        "--nogpgcheck",
        "--setopt=best=1",
        "--setopt=install_weak_deps=0",
        "--assumeno",
        "install",
        *asked,
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "500"})
    # Lines of the table are indented by one: name, architecture, version, repository, size.
    rows = [line.split() for line in told.stdout.splitlines() if line.startswith(" ") and len(line.split()) >= 5]
    theirs = sorted(f"{row[0]}-{row[2]}.{row[1]}" for row in rows if row[3] in MIRRORED)
    assert theirs == mirror.choose(asked), told.stderr


@pytest.mark.parametrize("weak", [False, True])
def test_random_names_provides_and_paths_of_the_mirror(mirror: Ours, tmp_path: Path, weak: bool) -> None:
    seed = SEED + weak
    print("seed", seed)
    chance = random.Random(seed)
    sets = random_requests(mirror, chance, 100)
    ours = [mirror.choose(texts, weak=weak) for texts in sets]
    assert compared(sets, dnf(tmp_path, MIRRORED, sets, weak=weak), ours) >= 60


def test_a_package_by_path_brings_what_it_brings_with_dnf(mirror: Ours, tmp_path: Path) -> None:
    (path,) = (MIRROR / "base").glob("redis-*.rpm")  # `updates` has a newer one
    checksum = digest_file(path)
    layer = LayerPlan("all", (Request("bash", "test"),), (LocalPackage(path, checksum, "test"),))
    recipe = Recipe("test", tmp_path / "test.yaml", "1", "local", (ARCH,), (layer,))
    sets = [["bash", str(path)]]
    assert compared(sets, dnf(tmp_path, MIRRORED, sets), [mirror.solve(recipe)]) == 1


def random_requests(mirror: Ours, chance: random.Random, count: int) -> list[list[str]]:
    """Sets of one to six requests: mostly names, some provides, paths, versions, globs, and a few that are
    wrong."""
    package_pool = PackagePool(ARCH, store=mirror.store)
    for opened in mirror.opened:
        package_pool.add_repository(opened)
    package_pool.index()
    package_pool._file_lists.load()
    found = list(package_pool.solvables())
    names = sorted({one.name for one in found})
    provides = sorted({dep.str() for one in found for dep in one.lookup_deparray(solv.SOLVABLE_PROVIDES, 0)})
    search = solv.Dataiterator.SEARCH_FILES | solv.Dataiterator.SEARCH_COMPLETE_FILELIST
    files = sorted({match.str for match in package_pool.pool.Dataiterator(solv.SOLVABLE_FILELIST, None, search)})
    nevras = sorted(str(package_pool.nevra(one.id)) for one in found)
    versions = sorted({f"{one.name}-{package_pool.nevra(one.id).version}" for one in found})
    architectures = sorted({f"{one.name}.{one.arch}" for one in found})
    globs = [
        *(f"{name[: max(2, len(name) // 2)]}*" for name in names),
        "*mysql*",
        "lib?l*",
        "*/nginx",
        "/usr/*/redis*",
    ]
    wrong = ["not-there", "bash-9", "nginx.i686", "nginx >= 99", "zlib = 3"]
    kinds = [names, names, names, provides, provides, files, files, nevras, versions, architectures, globs]
    sets = []
    for _ in range(count):
        asked = [chance.choice(chance.choice(kinds)) for _ in range(chance.randint(1, 6))]
        sets.append([*asked, chance.choice(wrong)] if chance.random() < 0.1 else asked)
    return sets


NAMES = [f"p{number}" for number in range(14)]
PATHS = ["/usr/bin/tool", "/usr/share/x/data", "/opt/file", "/etc/conf"]
VIRTUAL = ["virt", "web", "lib(64)"]
REQUESTS = [
    *NAMES, *VIRTUAL, *PATHS, "p1*", "p?", "p2-1", "p3.i686", "p4 >= 1", "lib(64) = 1", "/usr/share/*/data",
    "p5-1-1.x86_64", "p6-1:1", "(p7 or /opt/file)", "(no or /usr/share/x/data)", "/opt/*", "/usr/share/*", "*share/x*",
]  # fmt: skip


def random_dependency(chance: random.Random) -> str:
    """A name, a provide, a path, a comparison or a rich dependency."""
    kind = chance.random()
    if kind > 0.9:
        word = chance.choice(["or", "if", "and", "unless"])
        return f"({chance.choice(NAMES)} {word} {chance.choice(NAMES + VIRTUAL)})"
    if kind > 0.8:
        return chance.choice(PATHS)
    name = chance.choice(NAMES if kind < 0.55 else VIRTUAL)
    if chance.random() < 0.3:
        operator = chance.choice([">=", "=", "<", "<=", ">"])
        return f"{name} {operator} {chance.choice(['1', '2', '1-1', '1:1-2', '2-2'])}"
    return name


def random_packages(chance: random.Random) -> list[Rpm]:
    """Packages in several versions and architectures that need, refuse and replace each other."""

    def some(*weights: int) -> tuple[str, ...]:
        return tuple(random_dependency(chance) for _ in range(chance.choice(weights)))

    found: dict[str, Rpm] = {}
    architectures = [("x86_64",), ("x86_64", "i686"), ("noarch",), ("i686",), ("x86_64",)]
    for name in NAMES:
        for _ in range(chance.randint(1, 3)):
            for arch in chance.choice(architectures):
                virtual = chance.choice(VIRTUAL)
                rpm = Rpm(
                    name,
                    chance.choice(["1-1", "1-2", "2-1", "2-2", "1:1-1", "1.5~rc1-1"]),
                    arch,
                    provides=chance.choice([(), (), (virtual,), (f"{virtual} = {chance.choice('12')}",)]),
                    requires=some(0, 0, 1, 1, 2),
                    pre=some(0, 0, 0, 1),
                    conflicts=some(*[0] * 7, 1),
                    obsoletes=chance.choice(
                        [()] * 7 + [(chance.choice(NAMES) + chance.choice(["", " < 2", " < 1-2"]),)]
                    ),
                    recommends=some(*[0] * 6, 1),
                    supplements=some(*[0] * 9, 1),
                    files=tuple(chance.sample(PATHS, chance.choice([0, 0, 1]))),
                )
                found[rpm.nevra] = rpm
    return chance.sample(list(found.values()), len(found))


@pytest.mark.parametrize("number", range(12))
def test_random_repositories_with_priorities_costs_and_excludes(tmp_path: Path, number: int) -> None:
    seed = SEED + number
    print("seed", seed)
    chance = random.Random(seed)
    weak = chance.random() < 0.4
    exclude = chance.choice([[], [], ["p3"], ["p1*"], ["p2-1*"], ["p4-0:1*"]])
    repositories = {
        name: {
            "url": write_repository(tmp_path / name, random_packages(chance), compression="gz"),
            "priority": chance.choice([99, 99, 10]),
            "cost": chance.choice([1000, 1000, 500]),
        }
        for name in ("a", "b")
    }
    sets = [[chance.choice(REQUESTS) for _ in range(chance.randint(1, 3))] for _ in range(40)]
    platform = Platform(
        "p",
        tuple(
            PackageRepository(name, baseurls=(str(one["url"]),), priority=int(one["priority"]), cost=int(one["cost"]))
            for name, one in repositories.items()
        ),
    )
    own = Ours(tmp_path, platform, {})
    ours = [own.choose(texts, weak=weak, exclude=exclude) for texts in sets]
    compared(sets, dnf(tmp_path, repositories, sets, weak=weak, exclude=exclude), ours)


def random_modules(chance: random.Random, rpms: Sequence[Rpm]) -> tuple[str, list[str]]:
    """modules.yaml over some of the packages, in several builds of two streams, and the streams to enable."""
    documents: list[str] = []
    enabled: list[str] = []
    for number in range(3):
        module, named = f"m{number}", NAMES[number * 3 : number * 3 + 3]
        own = [rpm for rpm in rpms if rpm.name in named]
        for stream in ("1", "2"):
            for version in range(1, chance.randint(2, 4)):
                artifacts = [artifact(rpm) for rpm in own if chance.random() < 0.4]
                gone = [chance.choice(named)] if chance.random() < 0.2 else []
                documents.append(module_document(module, stream, version, artifacts, gone))
        default = chance.choice(["", "1", "2"])
        if default:
            documents.append(
                f"---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: {module}\n"
                f'  stream: "{default}"\n  profiles: {{}}\n...\n'
            )
        asked = chance.choice(["", "1", "2"])
        if asked:
            enabled.append(f"{module}:{asked}")
    return "".join(documents), enabled


GROUPS = ["@g0", "@g1", "@g2", "@g3", "@e0", "@e1", "@Group 2", "@g?"]
LOOK_ALIKES = 20
"""Pairs of repositories of which fifty requests each are asked: a thousand in all, half of them where time is short."""


def random_comps(chance: random.Random) -> str:
    """comps.xml with four groups over the packages' names and two environments of them."""
    groups = []
    for number in range(4):
        listed = ""
        for name in chance.sample([*NAMES, "not-there"], chance.randint(1, 4)):
            kind = chance.choice(["mandatory", "default", "optional", "conditional"])
            requires = f' requires="{chance.choice(NAMES)}"' if kind == "conditional" else ""
            native = chance.choice(["", "", ' basearchonly="true"'])
            listed += f'<packagereq type="{kind}"{requires}{native}>{name}</packagereq>'
        groups.append(
            f"<group><id>g{number}</id><name>Group {number}</name><packagelist>{listed}</packagelist></group>"
        )
    environments = [
        f"<environment><id>e{number}</id><name>E {number}</name><grouplist><groupid>g{number}</groupid>"
        f"<groupid>g{number + 1}</groupid></grouplist><optionlist><groupid>g3</groupid></optionlist></environment>"
        for number in range(2)
    ]
    doctype = '<!DOCTYPE comps PUBLIC "-//Red Hat, Inc.//DTD Comps info//EN" "comps.dtd">'
    return f'<?xml version="1.0"?>{doctype}<comps>{"".join(groups + environments)}</comps>'


@pytest.mark.parametrize("number", range(LOOK_ALIKES if SOAK else LOOK_ALIKES // 2))
def test_random_repositories_with_modules_hotfixes_includes_costs_and_groups(tmp_path: Path, number: int) -> None:
    seed = SEED + 1000 + number
    print("seed", seed)
    chance = random.Random(seed)
    modular, plain = random_packages(chance), random_packages(chance)
    text, enabled = random_modules(chance, modular)
    options: dict[str, dict[str, Any]] = {
        "a": {"cost": chance.choice([1000, 500])},
        "b": {
            "module_hotfixes": chance.random() < 0.5,
            "includepkgs": chance.choice([[], [], ["p1*", "p4", "p7-1*"], ["*"]]),
            "excludepkgs": chance.choice([[], ["p10"], ["p1?"]]),
        },
    }
    urls = {
        "a": write_repository(tmp_path / "a", modular, modules=text, comps=random_comps(chance)),
        "b": write_repository(tmp_path / "b", plain, comps=chance.choice(["", random_comps(chance)])),
    }
    kinds = [REQUESTS, REQUESTS, REQUESTS, GROUPS]
    sets = [[chance.choice(chance.choice(kinds)) for _ in range(chance.randint(1, 3))] for _ in range(50)]
    platform = Platform(
        "p",
        (
            PackageRepository("a", baseurls=(urls["a"],), cost=options["a"]["cost"]),
            PackageRepository(
                "b",
                baseurls=(urls["b"],),
                module_hotfixes=options["b"]["module_hotfixes"],
                include=tuple(options["b"]["includepkgs"]),
                exclude=tuple(options["b"]["excludepkgs"]),
            ),
        ),
    )
    own = Ours(tmp_path, platform, {})
    ours = [own.choose(texts, modules=enabled) for texts in sets]
    repositories = {name: {"url": url, **options[name]} for name, url in urls.items()}
    compared(sets, dnf(tmp_path, repositories, sets, modules=enabled), ours)


@pytest.mark.parametrize("number", range(4))
def test_random_groups_and_environments(tmp_path: Path, number: int) -> None:
    seed = SEED + 2000 + number
    print("seed", seed)
    chance = random.Random(seed)
    url = write_repository(tmp_path / "a", random_packages(chance), comps=random_comps(chance))
    sets = [[chance.choice(GROUPS), *chance.sample(NAMES, chance.randint(0, 1))] for _ in range(25)]
    own = Ours(tmp_path, Platform("p", (PackageRepository("a", baseurls=(url,)),)), {})
    ours = [own.choose(texts) for texts in sets]
    assert compared(sets, dnf(tmp_path, {"a": {"url": url}}, sets), ours) > 0
