"""The product of a job that built or published it, and the reasons for building it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.build import BuildResult
from pipeline.model.night_record import Outcome, Product
from pipeline.model.publication import Publication
from pipeline.model.report import SmokeReport
from pipeline.nightly.attached_documents import published_packages
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER
from pipeline.nightly.inputs import REPOSITORIES_INPUT, changed_inputs, in_words
from pipeline.nightly.inputs_record import PublishedProduct
from pipeline.nightly.job import Job
from pipeline.nightly.lock_comparison import same_packages


def why_built(job: Job, lock: str) -> str:
    """Return the reason why a product is built with a lock (as text), in words."""
    on_mirror = job.on_mirror
    if on_mirror is None:
        return job.why
    changed = [name for name in changed_inputs(on_mirror.record.inputs, dict(job.facts)) if name != REPOSITORIES_INPUT]
    reasons = []
    if not same_packages(on_mirror.record.lock, lock):
        reasons.append("packages changed")
    if changed:
        reasons.append(f"{in_words(changed)} changed")
    return " and ".join(reasons) or "requested"


def is_unchanged(job: Job, on_mirror: PublishedProduct, lock: str) -> bool:
    """Return whether a lock, as text, gives the published image again, tested as it was."""
    others = set(changed_inputs(on_mirror.record.inputs, dict(job.facts))) - {REPOSITORIES_INPUT}
    return same_packages(on_mirror.record.lock, lock) and not others


def built_product(job: Job, built: BuildResult, why: str) -> Product:
    """Return the product with the figures of an image that was built, and not published yet."""
    before = job.on_mirror
    published = job.product.published.with_build(
        built.bill,
        built.image,
        built.locked.all_chosen,
        before=published_packages(before) if before else None,
        failed_scriptlets=built.failed_scriptlets,
    )
    run = replace(job.product.run, outcome=Outcome.BUILT, why=why)
    return tested_product(replace(job.product, run=run, published=published), [built.report])


def tested_product(product: Product, reports: Sequence[SmokeReport | None]) -> Product:
    """Return the product with the figures of its first image's test, and what ran all of them."""
    here = CURRENT_WORKER.get()
    published = product.published.with_test(reports[0]).with_executions(reports, here.worker if here else "")
    return replace(product, published=published)


def published_product(job: Job, product: Product, publication: Publication, *, tested: bool) -> Product:
    """Return the product as it is published now."""
    before = job.on_mirror.digest if job.on_mirror else None
    same = before == publication.digest
    outcome = Outcome.BUILT if not same or publication.moved else Outcome.RETESTED if tested else Outcome.UNCHANGED
    former = job.product.published
    return replace(
        product,
        run=replace(
            product.run,
            outcome=outcome,
            why="; ".join((product.run.why, *(["the image is identical"] if same else []), *_left(publication))),
            uploaded=product.run.uploaded + publication.bytes_uploaded,
            moved=tuple(move.tag for move in publication.moved),
        ),
        published=replace(
            product.published,
            digest=publication.digest,
            previous=former.previous if same else before,
            changes=former.changes if same else product.published.changes,
            immutable=publication.immutable,
            tags=(*(move.tag for move in publication.moved), *publication.unmoved),
        ),
    )


def _left(publication: Publication) -> Sequence[str]:
    """Return in words which tags are left: they stay where a person moved them, or should."""
    return [
        f"'{tag}' stays at {target.short}: it was moved back, or the mirror shows less of its moves than was seen"
        if target != publication.digest
        else f"'{tag}' points to {target.short}, from which it was moved back, without a signed move: "
        "`relbuild promote` the right image"
        for tag, target in publication.left
    ]
