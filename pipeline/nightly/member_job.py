"""Make a product of several architectures by several jobs: its images, then their index.

So each image is built and tested by a machine of its architecture. It goes to the mirror, signed and attested, and what
comes back to who plans the night is its digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.build import build, lock
from pipeline.errors import PublicationRefused
from pipeline.launch import plan_to_test
from pipeline.mirror.published import read_published
from pipeline.model.configuration import oci_architecture
from pipeline.model.enforcement import unenforced_lines
from pipeline.model.lock import Lock
from pipeline.model.night_record import Outcome
from pipeline.model.recipe import Recipe
from pipeline.nightly.attached_documents import list_attached
from pipeline.nightly.inputs import looked_for_templates, templates_digest
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct, record_predicate
from pipeline.nightly.job import Job, JobResult, MemberImage
from pipeline.nightly.job_failure import publishing, smoke_failed_product
from pipeline.nightly.lock_comparison import joined_locks, lock_of_architecture
from pipeline.nightly.night_key import load_night_key
from pipeline.nightly.product_result import built_product, is_unchanged, published_product, why_built
from pipeline.nightly.progress_log import ProgressLog
from pipeline.nightly.published_parent import require_parent
from pipeline.oci.predicates import LOCK
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.release.current_images import mirror_access
from pipeline.release.publish_members import IndexOptions, publish_index, push_member
from pipeline.resolve import format_lock
from pipeline.sandbox import find_emulator
from pipeline.smoke import plan_digest


def make_member(
    job: Job, recipe: Recipe, options: BuildOptions, build_env: BuildEnvironment, progress_log: ProgressLog
) -> JobResult:
    """Resolve, build, test and push the image of a job's architecture, without a tag.

    If it is resolved to the packages that are published, nothing is built. Raises RelbuildError, such as
    EnvironmentLacking `architecture-foreign` before anything is built.
    """
    options = replace(options, architectures=(job.architecture,), member=True)
    find_emulator(oci_architecture(job.architecture))
    job, why = _of_member(job), job.why
    if job.resolve:
        locked = lock(options, build_env)
        require_parent(job.parents, [locked], job.recipe)
        text = _text(locked)
        found = _published_member(job, text, build_env)
        if found is not None:
            run = replace(job.product.run, outcome=Outcome.UNCHANGED, why="resolved to the same packages")
            return JobResult(replace(job.product, run=run), None, text, found)
        why = why_built(job, text)
    built = build(options, build_env)
    require_parent(job.parents, [built.locked], job.recipe)
    if built.report is None or not built.report.passed:
        return JobResult(smoke_failed_product(job, built.report, progress_log), None)
    key = load_night_key(job.settings, progress_log)
    settings = job.settings
    with publishing():
        pushed = push_member(
            built.layout,
            settings.to,
            key,
            build_env,
            rules=settings.rules,
            known_as=settings.known_as,
            read_back=True,
        )
    product = built_product(job, built, why)
    product = replace(product, run=replace(product.run, uploaded=sum(size for _, size in pushed.uploaded)))
    text, (names, content) = _text(built.locked), looked_for_templates([built.assembled.templates.contents])
    member = MemberImage(
        architecture=job.architecture,
        digest=pushed.digest,
        lock=text,
        templates=names,
        templates_content=content,
        provenance=replace(built.record.provenance, materials=()),
        tested=not built.verdict_reused,
    )
    return JobResult(product, None, text, member)


def publish_members(job: Job, recipe: Recipe, build_env: BuildEnvironment, progress_log: ProgressLog) -> JobResult:
    """Publish the index of a job's members, if the gate lets it. Raises RelbuildError."""
    settings = job.settings
    require_same_templates(job.members, recipe)
    names = tuple(sorted({name for member in job.members for name in member.templates}))
    facts = {**dict(job.facts), "templates": templates_digest(recipe, names)}
    text = joined_locks([member.lock for member in job.members])
    record = InputsRecord(tuple(sorted(facts.items())), names, text)
    options = IndexOptions(
        name=recipe.name,
        members=tuple(member.digest for member in job.members),
        to=settings.to,
        key=load_night_key(settings, progress_log),
        provenance=next(member.provenance for member in job.members if member.provenance is not None),
        checks=plan_digest(plan_to_test(recipe.smoke, full=settings.full)),
        rules=settings.rules,
        known_as=settings.known_as,
        attested={LOCK: record_predicate(record)},
        former=settings.former,
    )
    publication = publish_index(options, build_env)
    for line in unenforced_lines(publication.limits):
        build_env.progress.warn(f"{recipe.name}: {line.removeprefix('! ')}")
    with mirror_access(build_env).repository(settings.to.below(recipe.name)) as repository:
        attached = list_attached(repository, job.members[0].digest)
    tested = any(member.tested for member in job.members)
    product = published_product(job, job.product, publication, tested=tested)
    product = replace(product, published=replace(product.published, attached=attached))
    return JobResult(product, PublishedProduct(record, publication.digest, publication.immutable), text)


def require_same_templates(members: Sequence[MemberImage], recipe: Recipe) -> None:
    """Refuse images of other templates than the recipe has now.

    Each was made of files as they were when its task began. The record of the index would say that they are of today's
    templates, and no later night would build them again. Raises PublicationRefused `templates-changed`.
    """
    for member in members:
        if templates_digest(recipe, member.templates) != member.templates_content:
            raise PublicationRefused(
                "templates-changed",
                f"a template of '{recipe.name}' changed after the image for {member.architecture} was made",
                place=str(recipe.path),
                hint="run nightly again; leave the recipes unchanged while it runs",
            )


def _of_member(job: Job) -> Job:
    """Return the job with what is known of its own architecture's published image alone."""
    if job.on_mirror is None:
        return job
    record = job.on_mirror.record
    own = lock_of_architecture(record.lock, job.product.platform, job.architecture)
    return replace(job, on_mirror=replace(job.on_mirror, record=replace(record, lock=own)))


def _published_member(job: Job, lock: str, build_env: BuildEnvironment) -> MemberImage | None:
    """Return the published image of the job's architecture if building would give it again."""
    on_mirror = job.on_mirror
    if on_mirror is None or job.settings.retest or not is_unchanged(job, on_mirror, lock):
        return None
    with mirror_access(build_env).repository(job.settings.to.below(job.product.name)) as repository:
        images = read_published(repository, on_mirror.digest).images
    wanted = oci_architecture(job.architecture)
    digest = next((image.digest for image in images if image.config.architecture == wanted), None)
    if digest is None:
        return None
    record = on_mirror.record
    return MemberImage(job.architecture, digest, lock, record.templates, record.inputs["templates"])


def _text(locked: LockedRecipe) -> str:
    return format_lock(Lock(locked.recipe.name, (locked.section,)))
