"""Summarize a nightly run in GitHub-flavoured Markdown, for the summary of a CI run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.escaping import strip_invisible
from pipeline.model.night_record import NightlyRun, Outcome, Product
from pipeline.site.night_path import path_lines
from pipeline.site.product_status import (
    OUTCOME_ORDER,
    STAGE_TEXTS,
    aged_fixes,
    headline,
    order_products,
)
from pipeline.site.text_format import (
    count_text,
    day_text,
    size_text,
    span_text,
)

SUMMARY_LIMIT = 900_000
"""Characters of a summary: GitHub refuses more than 1 MiB."""
_LOG_SHOWN = 20
"""Lines of a failure's log that are shown."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&@:$])")


def summary_markdown(night: NightlyRun) -> str:
    """Return the run's headline, problems, failures, and a table of its products."""
    written: list[str] = []
    size = 0
    for block in _blocks(night):
        size += len(block)
        if size > SUMMARY_LIMIT:
            written.append("Truncated: see the site for the rest.\n")
            break
        written.append(block)
    return "\n".join(written)


def _blocks(night: NightlyRun) -> Iterator[str]:
    tally = ", ".join(f"{night.count(outcome)} {outcome}" for outcome in OUTCOME_ORDER if night.count(outcome))
    yield f"## {_plain(headline(night))}\n"
    yield (
        f"{day_text(night.began)}: {tally or 'no products'} in {span_text(night.ended - night.began)}, "
        f"exit code {night.exit_code}.\n"
    )
    if night.exceeded:
        yield f"### Fixes past the threshold {_plain(night.threshold)}\n"
        yield "".join(f"- {_plain(said)}\n" for said in night.exceeded)
    problems = [state for state in night.repositories if state.problem]
    if problems:
        yield "### Repositories that could not be read\n"
        yield "".join(f"- {_plain(state.repository)}: {_plain(state.problem)}\n" for state in problems)
    if night.set_aside:
        yield "### Excluded workers\n"
        yield "".join(f"- {_plain(one.worker)}: {_plain(one.why)}\n" for one in night.set_aside)
    products = order_products(night.products)
    for product in products:
        if product.run.outcome in (Outcome.FAILED, Outcome.BLOCKED):
            yield _trouble(product)
    yield "### Products\n"
    yield (
        "| Product | Platform | Outcome | Why | Version | Size | Took | Missing fixes |\n"
        "|---|---|---|---|---|---:|---:|---|\n" + "".join(_row(product, night.ended) for product in products)
    )
    path = list(path_lines(night))
    if path:
        yield f"### {_plain(path[0].capitalize().removesuffix(':'))}\n"
        yield "".join(f"- {_plain(line.strip())}\n" for line in path[1:])


def _row(product: Product, now: int) -> str:
    missing = aged_fixes(product, now)
    size = size_text(sum(layer.size for layer in product.published.layers)) if product.published.layers else "–"
    cells = (
        product.name,
        f"{product.platform} {product.arch}",
        product.run.outcome,
        product.run.why,
        product.published.version or "–",
        size,
        span_text(product.run.took) if product.run.took else "–",
        f"{len(missing)}, worst {missing[0].severity}" if missing else "none",
    )
    return f"| {' | '.join(_plain(cell) for cell in cells)} |\n"


def _trouble(product: Product) -> str:
    failure = product.run.failure
    title = f"### {_plain(product.name)} ({_plain(f'{product.platform} {product.arch}')}) {product.run.outcome}\n"
    if failure is None:
        return f"{title}\n{_plain(product.run.why)}\n"
    lines = [title, f"{_plain(failure.message)} \\[{_plain(failure.code)}\\], {STAGE_TEXTS[failure.stage]}.\n"]
    if failure.cause:
        lines.append(f"First line of the log that may explain it:\n\n{_fenced(failure.cause, 'text')}")
    if failure.place:
        lines.append(f"At {_plain(failure.place)}.\n")
    if failure.hint:
        lines.append(f"{_plain(failure.hint)}\n")
    if failure.command:
        lines.append(_fenced(failure.command, "sh"))
    if failure.log:
        shown = failure.log[-_LOG_SHOWN:]
        lines.append(
            f"<details><summary>Last {count_text(len(shown), 'line')} of the log</summary>\n\n"
            f"{_fenced(chr(10).join(shown), 'text')}\n</details>\n"
        )
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape a text for Markdown, on one line: no markup, mentions or references."""
    return _SPECIAL.sub(r"\\\1", " ".join(strip_invisible(text).split()))


def _fenced(text: str, language: str) -> str:
    """Return a fenced code block, its fence longer than any in the text."""
    text = strip_invisible(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"
