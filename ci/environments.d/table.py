"""The table of docs/environments.md, made from what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kinds import Environment
from sessions import Outcome

WORKS = "works"


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of one environment: the digest or the error of each product, and the outcomes of the other commands."""

    environment: Environment
    digests: Mapping[str, str]
    failures: Mapping[str, Outcome]
    others: Mapping[str, Outcome]

    def unequal(self, reference: Observed) -> list[str]:
        """Return the products without the digest that they have in the reference."""
        return [name for name, digest in reference.digests.items() if self.digests.get(name) != digest]


COMMANDS = ("smoke", "run", "publish")


def table(rows: Sequence[Observed], product: str) -> str:
    """Return the table and the hints of the errors in it, as Markdown."""
    by_name = {row.environment.name: row for row in rows}
    lines = [
        f"| environment | `build --no-smoke` | `smoke {product}` | `run -d {product}` | `publish {product}` |",
        "|---|---|---|---|---|",
    ]
    hints: dict[str, str] = {}
    for row in rows:
        cells = [_build(row, by_name), *(_other(row.others[name], hints) for name in COMMANDS)]
        for failed in row.failures.values():
            hints.setdefault(failed.code, failed.hint)
        lines.append(f"| {row.environment.title} | {' | '.join(cells)} |")
    if hints:
        lines += ["", "The way out that each error names:", ""]
        lines += [f"- `{code}`: {hint}" for code, hint in sorted(hints.items()) if code]
    return "\n".join(lines) + "\n"


def _build(row: Observed, by_name: Mapping[str, Observed]) -> str:
    reference = by_name[row.environment.reference]
    count = len(row.digests) + len(row.failures)
    if row is reference:
        return f"{len(row.digests)} of {count}, the reference" + (" in the image" if row.environment.own_image else "")
    unequal = row.unequal(reference)
    told = f"{count - len(set(unequal) | set(row.failures))} of {count} equal to {_whose(reference)}"
    named = [f"{name} `{failed.code or failed.status}`" for name, failed in row.failures.items()]
    named += [f"{name} differs" for name in unequal if name not in row.failures]
    return told + (f"; {', '.join(named)}" if named else "")


def _whose(reference: Observed) -> str:
    return "root's in the image" if reference.environment.own_image else "root's"


def _other(outcome: Outcome, hints: dict[str, str]) -> str:
    if outcome.status == 0:
        return WORKS
    if outcome.code:
        hints.setdefault(outcome.code, outcome.hint)
    return f"`{outcome.code or outcome.status}`"
