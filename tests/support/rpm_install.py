"""Installation of an image's packages by rpm itself, and every difference between its tree and the image."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.build import BuildResult
from pipeline.model.header import FileFlag
from pipeline.prepare import BuildEnvironment
from tests.support.explained_differences import Context, explained
from tests.support.trees import Difference, Found, differences, read_tree


def rpm(root: Path, *argv: str, check: bool = True, database: str = "/usr/lib/sysimage/rpm") -> str:
    """Ask the rpm of this machine about a tree; what it prints."""
    done = subprocess.run(
        ["rpm", "--root", str(root), "--dbpath", database, *argv], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def install_with_rpm(root: Path, result: BuildResult, build_env: BuildEnvironment) -> str:
    """Install with scriptlets into `root`, in the same order, with the options that correspond to the recipe's.

    Returns what rpm says on standard error.
    """
    docs = [] if any(plan.docs for plan in result.locked.recipe.layers) else ["--excludedocs"]
    database = result.locked.platform.rpm_database.folder
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for header in result.locked.headers:
            link = Path(folder, f"{str(header.nevra).replace(':', '_')}.rpm")
            link.symlink_to(build_env.store.blob(header.checksum))
            files.append(str(link))
        done = subprocess.run(
            [
                "rpm", "--root", str(root), "--dbpath", database, "--define", "_pkgverify_level none", "--nodeps",
                "--noorder", "--install", *docs, *files,
            ],
            capture_output=True, text=True, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def canonical(root: Path, path: str) -> str:
    """Where a header's path leads through the usr-merge links of an image."""
    first, _, rest = path.lstrip("/").partition("/")
    link = root / first
    return f"/{link.readlink()}/{rest}" if link.is_symlink() else path


def open_numbers(root: Path, result: BuildResult) -> Iterator[tuple[int, int]]:
    """(the image's number, rpm's number) of the accounts that scripts made with whatever number was free. Every
    account that rpm's scripts made must be in the image, too."""
    for name, number_of in (("passwd", result.locked.accounts.uid), ("group", result.locked.accounts.gid)):
        for line in (root / "etc" / name).read_text().splitlines():
            account, _, number, *_ = line.split(":")
            mine = number_of(account)
            assert mine is not None, f"the image has no {account} in {name}"
            if mine != int(number):
                yield mine, int(number)


def compare_with_rpm(
    root: Path, result: BuildResult, image: Mapping[str, Found]
) -> tuple[list[Difference], list[Difference]]:
    """All differences between the tree of an image and `root`, into which rpm installed, and those of them that nothing
    explains."""
    recipe = result.locked.recipe
    context = Context(
        changed=frozenset(change.path for change in result.changes),
        recipe=frozenset(plan.path.lstrip("/") for plan in recipe.files),
        removed=frozenset(path.lstrip("/") for path in recipe.remove),
        owned=frozenset(
            canonical(root, file.path).lstrip("/")
            for header in result.locked.all_headers
            for file in header.files
            if not file.flags & FileFlag.GHOST
        ),
        accounts=frozenset(open_numbers(root, result)),
        database=result.locked.platform.rpm_database.folder.lstrip("/"),
    )
    found = differences(image, read_tree(root), ("relbuild", "rpm"))
    return found, [one for one in found if not explained(one, context)]
