"""How times grow: builds in layers, nights in recipes, publications in records. For packages and bytes see `memory`.

The fastest of two turns counts, and a straight line is drawn through the fastest of all sizes. There is no goal: one
recipe leaves a processor free, and what does not grow is as far from a line as its turns differ: what each more costs
stands beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from product import emptied
from turns import SHARE, BenchFailed, Section, Session, relbuild, straight

from tests.support.product_builds import signed_repository
from tests.support.rpm_factory import Signed, forge
from tests.support.signing_examples import PRIVATE

LAYERS = (1, 10, 20, 40)
RECIPES = (1, 4, 8, 16)
RECORDS = (1, 8, 16, 24)
TURNS = 2
"""At most: a line through the fastest of two is steady enough."""

RECIPE = """
name: %(name)s
version: "%(version)s"
platform: small
architectures: [x86_64]
layers:
%(layers)s
image: {entrypoint: [/none]}
"""
TESTED = """
name: %(name)s
version: "1"
platform: small
architectures: [x86_64]
layers: [{name: base, packages: [busy]}]
files: [{content: "%(name)s", path: /etc/name, mode: "0644"}]
image:
  entrypoint: [/usr/bin/busybox, sh, -c, "trap 'exit 0' TERM; /usr/bin/busybox sleep 1000 & wait"]
  labels: {org.opencontainers.image.licenses: MIT}
smoke:
  limits: {memory: 64MiB, pids: 20}
  checks: [{name: is what it says, file: {path: /etc/name, text: "%(name)s"}}]
"""


def made(folder: Path) -> Path:
    """Make a signed repository of small packages, and one of busybox, as the platform `small`; return its folder."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise BenchFailed("busybox is not here: ci/setup test installs busybox-static")
    (folder / "forge").mkdir()
    with forge(folder / "forge") as factory:
        packages = factory.spec(_many(range(max(LAYERS))), signed=Signed.WELL)
        install = f"mkdir -p usr/bin etc tmp run dev proc sys; cp {busybox} usr/bin/busybox"
        files = ["/usr/bin/busybox", "%dir /etc", "%dir /tmp", "%dir /run"]
        packages.append(factory.package("busy", arch="x86_64", install=install, files=files))
        (folder / "packages").mkdir()
        text = signed_repository(folder / "packages", factory.key, *packages)
    (folder / "packages" / "repositories.yaml").write_text(text)
    return folder / "packages"


def _many(numbers: range) -> str:
    """A spec of packages of a few small files each."""
    lines = ["Name: many", "Version: 1", "Release: 1", "Summary: for the bench", "License: MIT", "BuildArch: noarch"]
    lines += ["AutoReqProv: no", "%description", "For the bench."]
    for number in numbers:
        lines += [f"%package -n part{number}", "Summary: for the bench", "AutoReqProv: no"]
        lines += [f"%description -n part{number}", "For the bench."]
    lines += ["%install", f"for n in $(seq {numbers.start} {numbers.stop - 1}); do"]
    lines += ["  mkdir -p %{buildroot}/usr/share/part$n"]
    lines += ["  for f in 1 2 3 4 5; do seq $n $((n + f * 200)) > %{buildroot}/usr/share/part$n/file$f; done", "done"]
    for number in numbers:
        lines += [f"%files -n part{number}", f"/usr/share/part{number}"]
    return "\n".join([*lines, ""])


def _recipe(folder: Path, packages: Path, name: str, layers: Sequence[Sequence[str]], version: str = "1") -> Path:
    shutil.copy(packages / "repositories.yaml", folder)
    path = folder / f"{name}.yaml"
    lines = "\n".join(f"  - {{name: l{at}, packages: [{', '.join(names)}]}}" for at, names in enumerate(layers))
    path.write_text(RECIPE % {"name": name, "version": version, "layers": lines})
    return path


def measure(session: Session) -> None:
    """Take all sizes in every turn, and draw a line through the fastest of each."""
    packages = made(session.folder)
    for _ in session.turns(warm_up=False, most=TURNS):
        for count in LAYERS:
            _build(session, packages, "layers", count, [[f"part{number}"] for number in range(count)])
        for count in RECIPES:
            _night(session, packages, count)
        _records(session, packages)
    for what, along, sizes in (
        ("a cold build", "layers", LAYERS),
        ("a night", "recipes", RECIPES),
        ("a publication", "records", RECORDS),
    ):
        points = [(float(size), min(session.of(f"{size} {along}", f"{what}, {along}"))) for size in sizes]
        session.curve(f"{what} in {along}", along, "s", points)
        line = straight(points)
        session.row(f"{what} in {along}: farthest from a straight line", [line.off], unit=SHARE)
        session.row(f"{what} in {along}: for each more", [line.slope * 1000], unit="ms")


def _build(session: Session, packages: Path, along: str, size: int, layers: Sequence[Sequence[str]]) -> None:
    with emptied(session.folder, "grown") as folder:
        recipe = _recipe(folder, packages, "grown", layers)
        words = ("--no-smoke", "--progress", "none", "--store", folder / "store", "--output", folder / "output")
        session.take(f"{size} {along}", f"a cold build, {along}", lambda: relbuild("build", recipe, *words))


def _key(folder: Path) -> Path:
    (folder / "signing").write_bytes(PRIVATE)
    (folder / "signing").chmod(0o600)
    return folder / "signing"


def _night(session: Session, packages: Path, count: int) -> None:
    with emptied(session.folder, "night") as folder:
        (folder / "recipes").mkdir()
        shutil.copy(packages / "repositories.yaml", folder / "recipes")
        for number in range(count):
            (folder / "recipes" / f"p{number}.yaml").write_text(TESTED % {"name": f"p{number}"})
        words = ("--to", f"dir:{folder}/mirror", "--key", _key(folder), "--store", folder / "store",
                 "--output", folder / "output", "--progress", "none")  # fmt: skip
        session.take(f"{count} recipes", "a night, recipes", lambda: relbuild("nightly", folder / "recipes", *words))


def _records(session: Session, packages: Path) -> None:
    """Publish one version after another, each of which leaves records of moves, and take the time of some of them."""
    with emptied(session.folder, "records") as folder:
        shutil.copy(packages / "repositories.yaml", folder)
        common = ("--progress", "none", "--store", folder / "store")
        for number in range(1, max(RECORDS) + 1):
            recipe = folder / "p.yaml"
            recipe.write_text((TESTED % {"name": "p"}).replace('version: "1"', f'version: "1.{number}"'))
            relbuild("build", recipe, "--output", folder / "output", *common)
            words = (folder / "output" / "p", "--to", f"dir:{folder}/mirror", "--key", _key(folder), *common)
            if number in RECORDS:
                session.take(f"{number} records", "a publication, records", lambda: relbuild("publish", *words))  # noqa: B023
            else:
                relbuild("publish", *words)


SECTIONS = (Section("growth", "How times grow", measure, mirror=False),)
