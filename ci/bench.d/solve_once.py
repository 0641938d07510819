"""Solves one question, by relbuild or by libsolv alone, and prints how many packages were chosen.

Usage: solve_once.py relbuild STORE REPOSITORY REQUEST…
       solve_once.py libsolv FOLDER REPOSITORY REQUEST…
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path


def by_relbuild(store: Path, repository: Path, requests: list[str]) -> int:
    """Open the repository and resolve: the part of a command between reading its recipe and writing the lock."""
    from pipeline.model.platform import PackageRepository, Platform
    from pipeline.model.recipe import LayerPlan, Recipe, Request
    from pipeline.repos import open_repositories
    from pipeline.resolve import solve
    from pipeline.store import Store

    gc.freeze()  # As the command line does.
    gc.enable()
    kept = Store.open(store)
    platform = Platform("large", (PackageRepository("large", baseurls=(repository.as_uri(),)),))
    layer = LayerPlan("all", tuple(Request(text, "bench") for text in requests))
    recipe = Recipe("bench", store / "bench.yaml", "1", "large", ("x86_64",), (layer,), weak_dependencies=False)
    opened = open_repositories(platform, "x86_64", variables={}, store=kept)
    return len(solve(recipe, platform, "x86_64", opened, store=kept).resolution.chosen)


def by_libsolv(folder: Path, repository: Path, requests: list[str]) -> int:
    """Load, index and solve with the settings that relbuild has, one thing after the other and without a check."""
    import subprocess

    import solv

    pool = solv.Pool()
    pool.setdisttype(solv.Pool.DISTTYPE_RPM)
    pool.setarch("x86_64")
    for flag in (
        solv.Pool.POOL_FLAG_WHATPROVIDESWITHDISABLED,
        solv.Pool.POOL_FLAG_NOWHATPROVIDESAUX,
        solv.Pool.POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS,
    ):
        pool.set_flag(flag, 1)
    if (folder / "primary.solv").exists():
        from pipeline.heap import reserve_huge_pages
        from pipeline.resolve.solv_cache import SOLV_EXPANSION

        reserve_huge_pages(SOLV_EXPANSION * (folder / "primary.solv").stat().st_size)
    repo = pool.add_repo("large")
    files = any(one.startswith("/") for one in requests)
    extending = solv.Repo.REPO_LOCALPOOL | solv.Repo.REPO_EXTEND_SOLVABLES
    for kind, language, flags in (("primary", None, 0), *([("filelists", "FL", extending)] if files else [])):
        kept = folder / f"{kind}.solv"
        if kept.exists():
            assert repo.add_solv(str(kept), flags)
            continue
        opened = folder / f"{kind}.xml"
        subprocess.run(["zstd", "-q", "-d", "-o", opened, repository / f"repodata/{kind}.xml.zst"], check=True)
        assert repo.add_rpmmd(solv.xfopen(str(opened), "r"), language, flags)
        file = solv.xfopen(str(kept), "w")
        assert (repo if not flags else solv.XRepodata(repo, 2)).write(file) and file.close()
        opened.unlink()
    pool.addfileprovides()
    pool.createwhatprovides()
    jobs = []
    for one in requests:
        how = solv.Selection.SELECTION_FILELIST if one.startswith("/") else solv.Selection.SELECTION_NAME
        jobs += pool.select(one, how).jobs(solv.Job.SOLVER_INSTALL)
    solver = pool.Solver()
    solver.set_flag(solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, 1)
    assert not solver.solve(jobs)
    return len(solver.transaction().newpackages())


if __name__ == "__main__":
    gc.disable()
    act = by_relbuild if sys.argv[1] == "relbuild" else by_libsolv
    print(act(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
