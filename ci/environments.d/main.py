"""Start here: builds, tests, runs and publishes in each environment, and writes the table."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from kinds import ENVIRONMENTS, Environment  # noqa: E402
from sessions import OnMachine, Outcome, Session  # noqa: E402
from stage import Place, Stage, open_stage  # noqa: E402
from supervised import supervise  # noqa: E402
from table import Observed, table  # noqa: E402

PRODUCTS = (
    "base", "haproxy", "httpd", "mariadb", "memcached", "mysql", "nginx", "postgresql", "python", "redis", "valkey",
    "welcome",
)  # fmt: skip
LAUNCHED = "redis"
"""The product that is smoke-tested, run and published."""

DOCUMENT = ROOT / "docs/environments.md"
_BEGIN, _END = "<!-- table: ci/environments --write -->\n", "<!-- /table -->\n"


def main() -> int:
    """Parse, run the environments that were asked for, and print or write the table."""
    given = _arguments()
    if given.list:
        print("\n".join(f"{one.name:26} {one.title}" for one in ENVIRONMENTS))
        return 0
    if not given.supervised:
        return supervise([sys.executable, __file__, "--supervised", *sys.argv[1:]])
    wanted = _with_references(given.only)
    owners = {one.name: one.uid for one in wanted}
    read_only = [one.name for one in wanted if one.read_only_home]
    mirror = Path(os.environ["RELBUILD_MIRROR"])
    products = given.products or PRODUCTS
    rows = []
    with open_stage(mirror, owners, read_only, own=any(one.own_image for one in wanted)) as stage:
        for one in wanted:
            began = time.monotonic()
            rows.append(_observe(one, stage, products))
            print(f"{one.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        text = table(rows, LAUNCHED)
        print(text, flush=True)
        if given.write:
            _write(text)
        print("removing what was made", file=sys.stderr, flush=True)
    references = {row.environment.name: row for row in rows}
    unequal = [row for row in rows if row.failures or row.unequal(references[row.environment.reference])]
    return 1 if unequal else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ci/environments")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[one.name for one in ENVIRONMENTS])
    parser.add_argument("--products", type=lambda text: text.split(","))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.only) - {one.name for one in ENVIRONMENTS}
    if unknown:
        parser.error(f"no such environment: {', '.join(sorted(unknown))} (try --list)")
    return given


def _with_references(names: list[str]) -> list[Environment]:
    by_name = {one.name: one for one in ENVIRONMENTS}
    needed = {*names, *(by_name[name].reference for name in names)}
    return [one for one in ENVIRONMENTS if one.name in needed]


def _observe(environment: Environment, stage: Stage, products: Sequence[str]) -> Observed:
    place = stage.places[environment.name]
    digests: dict[str, str] = {}
    failures: dict[str, Outcome] = {}
    with environment.open(stage, place) as session:
        for product in products:
            built = session.relbuild("build", f"recipes/{product}.yaml", "--no-smoke")
            digest = _digest(built)
            if digest:
                digests[product] = digest
            else:
                failures[product] = built
            _tell(environment, product, built)
        others = _others(environment, session, stage, place)
    return Observed(environment, digests, failures, others)


def _digest(built: Outcome) -> str:
    if built.status or not isinstance(built.answer, dict):
        return ""
    return str(built.answer["built"][0]["digest"])


def _others(environment: Environment, session: Session, stage: Stage, place: Place) -> dict[str, Outcome]:
    smoked = session.relbuild("smoke", f"recipes/{LAUNCHED}.yaml")
    if smoked.status:
        # Another machine that may launch containers tests the same bytes, and has the same key of stores.
        root = OnMachine(stage, place, extra={"HOME": str(stage.folder)})
        tested = root.relbuild("smoke", f"recipes/{LAUNCHED}.yaml")
        assert tested.status == 0, tested
        subprocess.run(["chmod", "-R", "a+rX", place.work / "output"], check=True)
    ran = session.relbuild("run", f"output/{LAUNCHED}", "--detach", "--name", "one")
    if not ran.status:
        ended = session.relbuild("rm", "--force", "one")
        ran = ended if ended.status else ran
    published = session.relbuild(
        *("publish", f"output/{LAUNCHED}", "--to", "dir:mirror", "--as", "example.test/products"),
        *("--key", str(stage.folder / "key.key")),
    )
    found = {"smoke": smoked, "run": ran, "publish": published}
    for name, outcome in found.items():
        _tell(environment, name, outcome)
    return found


def _tell(environment: Environment, what: str, outcome: Outcome) -> None:
    said = "ok" if outcome.status == 0 else f"{outcome.status} {outcome.code} {outcome.hint or outcome.text}"
    print(f"{environment.name}: {what}: {said}", file=sys.stderr, flush=True)


def _write(text: str) -> None:
    document = DOCUMENT.read_text()
    pattern = re.compile(f"(?s){re.escape(_BEGIN)}.*?{re.escape(_END)}")
    DOCUMENT.write_text(pattern.sub(lambda _: f"{_BEGIN}{text}{_END}", document))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
