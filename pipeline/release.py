"""The narrative of publishing: what was tested here goes to a mirror, and what is on a mirror is verified, carried on,
promoted and rolled back. Each line a verb on a noun; start reading at `publish`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, UsageError, VerificationError
from pipeline.gather import Workshop
from pipeline.materials import read_bill, read_materials, read_sbom, report_folder
from pipeline.mirror.addresses import Address
from pipeline.mirror.attesting import OF_EACH_INDEX, EvidenceOf, SignedCompanions
from pipeline.mirror.carrying import Carried, carry
from pipeline.mirror.demands import CurrentImage
from pipeline.mirror.differences import Difference, Known, difference, read_known
from pipeline.mirror.gate import Attested, Candidate, Cleared, Sealed
from pipeline.mirror.held import Held, read_held
from pipeline.mirror.history import earlier, read_history
from pipeline.mirror.opening import Way
from pipeline.mirror.publishing import Consignment, Mover, set_for_ever
from pipeline.mirror.publishing import publish as deliver
from pipeline.mirror.repository import TAG, Repository, is_auxiliary
from pipeline.mirror.tags import floating_tags, immutable_tag
from pipeline.mirror.verifying import Verified
from pipeline.mirror.verifying import verify as verify_held
from pipeline.model.artifact import Manifest
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.evidence import EVIDENCE_FILE, EVIDENCE_LIMIT, EVIDENCE_SEAL
from pipeline.model.image import Image
from pipeline.model.provenance import Material, MaterialKind
from pipeline.model.publication import Move, Past, Publication, Why
from pipeline.model.rules import MirrorRules
from pipeline.oci import SigningKey, VerifyingKey, adopt_layout, make_index, provenance_predicate
from pipeline.oci.predicates import CYCLONEDX, PROVENANCE, SMOKE, SPDX
from pipeline.oci.sbom import SbomForm


def way(workshop: Workshop) -> Way:
    """How mirrors are reached from a workshop."""
    return Way(workshop.environment, workshop.progress, workshop.clock)


# --- publish -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishOrder:
    """What is to be published: `layouts` as builds left them, with their reports beside them. Those of one name become
    one index. `to` is a mirror; `known_as` is `HOST/NAMESPACE` for those who pull from a directory. `tags` replace the
    tags that follow the version."""

    layouts: tuple[Path, ...]
    to: Address
    key: SigningKey
    rules: MirrorRules = MirrorRules()
    tags: tuple[str, ...] | None = None
    known_as: str = ""


@dataclass(frozen=True, slots=True)
class Parcel:
    """An image as a build left it: what was answered, what it is made of, what from."""

    image: Image
    evidence: bytes
    seal: str
    bill: Bill
    record: BuildRecord
    sboms: tuple[tuple[str, bytes], ...]


def publish(order: PublishOrder, workshop: Workshop) -> tuple[Publication, ...]:
    """Publish what was built and tested here. Each product is a publication of its own; those before one that is
    refused are published.

    Raises PublicationRefused, UsageError, VerificationError, EnvironmentLacking.
    """
    parcels = [open_parcel(layout, workshop) for layout in order.layouts]
    products = {
        parcel.image.name: [one for one in parcels if one.image.name == parcel.image.name] for parcel in parcels
    }
    publications = []
    with way(workshop).mirror(order.to, create=True, name=order.known_as) as mirror, mirror.writing():
        for name, members in products.items():
            repository = mirror.repository(name)
            consignment, clear_again = consign(members, repository, order, workshop)
            publications.append(
                deliver(
                    consignment,
                    repository,
                    clear_again=clear_again,
                    clock=workshop.clock,
                    progress=workshop.progress,
                )
            )
    return tuple(publications)


def open_parcel(layout: Path, workshop: Workshop) -> Parcel:
    """An image from its layout, its layers taken into the store, with what its report's folder says of it.

    Raises UsageError `report-missing`, PublicationRefused `gate-report-missing`, VerificationError.
    """
    image = adopt_layout(layout, store=workshop.store)
    folder = report_folder(layout)
    evidence, seal = _evidence(folder, image)
    forms = {SPDX: SbomForm.SPDX, CYCLONEDX: SbomForm.CYCLONEDX}
    return Parcel(
        image=image,
        evidence=evidence,
        seal=seal,
        bill=read_bill(folder),
        record=read_materials(folder),
        sboms=tuple((kind, read_sbom(folder, form, image.digest)) for kind, form in forms.items()),
    )


def _evidence(folder: Path, image: Image) -> tuple[bytes, str]:
    try:
        with (folder / EVIDENCE_FILE).open("rb") as file:
            evidence = file.read(EVIDENCE_LIMIT + 1)
        return evidence, (folder / EVIDENCE_SEAL).read_text(errors="replace")[:1000]
    except FileNotFoundError:
        raise PublicationRefused(
            "gate-report-missing",
            f"{image.name} {image.digest} has no passing smoke report in {folder}",
            place=str(folder),
            hint="test it: `relbuild build`, or `relbuild smoke RECIPE` for an image that was built before",
        ) from None


def consign(
    members: Sequence[Parcel], repository: Repository, order: PublishOrder, workshop: Workshop
) -> tuple[Consignment, Callable[[], Cleared]]:
    """Everything that goes to the mirror for one product, cleared; and how to ask the gate anew."""
    images = tuple(member.image for member in members)
    _refuse_doubles(images)
    top = _manifest(images[0]) if len(images) == 1 else make_index(images)
    version = members[0].bill.version
    created = max(image.config.created for image in images)
    floating = order.tags if order.tags is not None else floating_tags(version)
    candidates = tuple(
        Candidate(
            member.image.manifest_bytes,
            member.image.config_bytes,
            member.evidence,
            Sealed(member.seal, workshop.store),
        )
        for member in members
    )

    def clear() -> Cleared:
        tags = (*floating, immutable_tag(version, created, top.digest))
        current = current_images(repository, floating, top.digest)
        return Cleared(images[0].name, tags, top, candidates, order.rules, current)

    companions = [_companions(member, order.key) for member in members]
    if len(images) > 1:
        companions.append(_index_companions(top, members, created, order.key))
    consignment = Consignment(
        cleared=clear(),
        images=images,
        companions=tuple(companions),
        version=version,
        created=created,
        floating=floating,
        source=workshop.store.blob,
    )
    return consignment, clear


def _refuse_doubles(images: Sequence[Image]) -> None:
    platforms = [(image.config.architecture, image.config.variant) for image in images]
    for platform in platforms:
        if platforms.count(platform) > 1:
            raise UsageError(
                "platform-twice",
                f"{images[0].name} is named twice for {'/'.join(filter(None, platform))}",
                hint="name one layout for each architecture",
            )


def _manifest(image: Image) -> Manifest:
    return Manifest(image.manifest_descriptor.media_type, image.manifest_bytes)


def _companions(member: Parcel, key: SigningKey) -> SignedCompanions:
    image = member.image
    return SignedCompanions(
        about=image.manifest_descriptor,
        name=image.name,
        created=image.config.created,
        predicates={
            PROVENANCE: provenance_predicate(member.record.provenance),
            **dict(member.sboms),
            SMOKE: member.evidence,
        },
        key=key,
    )


def _index_companions(top: Manifest, members: Sequence[Parcel], created: int, key: SigningKey) -> SignedCompanions:
    """Of an index: its signature, and that it was made of these images."""
    first = members[0].record.provenance
    images = tuple(
        Material(
            f"{member.image.name} for {member.image.config.architecture}", "", member.image.digest, MaterialKind.IMAGE
        )
        for member in members
    )
    architectures = ", ".join(sorted(member.record.provenance.architecture for member in members))
    provenance = replace(first, materials=images, architecture=architectures, invocation="")
    assert set(OF_EACH_INDEX) >= {PROVENANCE}
    return SignedCompanions(
        about=top.descriptor,
        name=members[0].image.name,
        created=created,
        predicates={PROVENANCE: provenance_predicate(provenance)},
        key=key,
    )


def current_images(repository: Repository, tags: Sequence[str], wanted: Digest) -> tuple[CurrentImage, ...]:
    """What tags point to now, but for those that point to `wanted`. What cannot be read as an image there is passed
    over: a tag that somebody else broke must not keep the next publication from mending it."""
    known: dict[Digest, Held | None] = {}
    found = []
    for tag in tags:
        digest = repository.resolve(tag)
        if digest is None or digest == wanted:
            continue
        if digest not in known:
            known[digest] = _readable(repository, digest)
        held = known[digest]
        if held is not None:
            found.append(CurrentImage(tag, held.version, held.created))
    return tuple(found)


def _readable(repository: Repository, digest: Digest) -> Held | None:
    try:
        return read_held(repository, digest)
    except (UsageError, VerificationError):
        return None


# --- verify --------------------------------------------------------------------------------------------------


def verify(reference: Address, key: VerifyingKey, workshop: Workshop, *, contents: bool = True) -> Verified:
    """Verify what a reference names: every byte (without `contents`, of layers only that they are there), signatures,
    attestations, and the recorded answers once more."""
    with way(workshop).repository(reference) as repository:
        return verified(repository, reference.reference, key, workshop, contents=contents)


def verified(
    repository: Repository, reference: Digest | str, key: VerifyingKey, workshop: Workshop, *, contents: bool
) -> Verified:
    """The same, of a repository that is open."""
    return verify_held(
        repository,
        reference,
        key,
        judge=lambda held: clear_held(held, (), repository, key, MirrorRules()),
        progress=workshop.progress,
        contents=contents,
    )


def clear_held(
    held: Held, tags: tuple[str, ...], repository: Repository, key: VerifyingKey, rules: MirrorRules
) -> Cleared:
    """What a mirror holds, cleared by the evidence that `key` attests there. Going back is what a person wants who
    names an older image, so what `tags` point to now is not asked about."""
    verifier = EvidenceOf(repository, key)
    warrants = [Attested(image.digest, verifier) for image in held.images]
    candidates = tuple(
        Candidate(image.manifest_bytes, image.config_bytes, warrant.evidence, warrant)
        for image, warrant in zip(held.images, warrants, strict=True)
    )
    return Cleared(held.images[0].name, tags, held.manifest, candidates, rules)


# --- promote, roll back -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a tag: `moved` is None if it pointed there already."""

    repository: str
    tag: str
    digest: Digest
    version: str
    moved: Move | None


def promote(reference: Address, channel: str, key: VerifyingKey, rules: MirrorRules, workshop: Workshop) -> Moved:
    """Point `channel` at the very digest that `reference` names, verified first, and cleared by that channel's rules.
    Nothing is uploaded but the record of the move."""
    with way(workshop).repository(reference) as repository:
        _refuse_name(channel)
        held = verified(repository, reference.reference, key, workshop, contents=False).held

        def clear() -> Cleared:
            current = current_images(repository, (channel,), held.digest)
            return replace(clear_held(held, (channel,), repository, key, rules), current=current)

        return _point(repository, channel, held, clear, Why.PROMOTE, workshop)


def rollback(reference: Address, to: Digest | None, key: VerifyingKey, rules: MirrorRules, workshop: Workshop) -> Moved:
    """Point a tag at what it pointed to before, or at `to`, verified first to its last byte. Nothing is uploaded but
    the record of the move. Raises UsageError `history-empty`, `not-in-history`."""
    tag = reference.tag or "latest"
    with way(workshop).repository(reference) as repository:
        before = earlier(read_history(repository, tag))
        if to is None and not before:
            raise UsageError(
                "history-empty",
                f"'{tag}' has pointed to nothing else before",
                place=repository.url,
                hint="name a digest with --to; `relbuild history` shows what there is",
            )
        target = to or before[0]
        held = verified(repository, target, key, workshop, contents=True).held

        def clear() -> Cleared:
            return clear_held(held, (tag,), repository, key, rules)

        return _point(repository, tag, held, clear, Why.ROLLBACK, workshop)


def _point(
    repository: Repository, tag: str, held: Held, clear: Callable[[], Cleared], why: Why, workshop: Workshop
) -> Moved:
    mover = Mover(repository, held.version, why, clear, workshop.clock)
    moves, _ = mover.move((tag,), clear())
    return Moved(repository.url, tag, held.digest, held.version, moves[0] if moves else None)


def _refuse_name(tag: str) -> None:
    if is_auxiliary(tag) or not TAG.fullmatch(tag):
        raise UsageError(
            "tag-reserved" if is_auxiliary(tag) else "tag-malformed",
            f"'{tag}' cannot be a channel",
            hint="take a name like 'stable': letters, digits, _ . and -, not beginning with 'move.' or 'sha256-'",
        )


# --- history -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A move of a tag, and what changed with it: None where either image is not there any more, or has no SBOM."""

    past: Past
    changes: Difference | None


def history(reference: Address, workshop: Workshop) -> tuple[Step, ...]:
    """All moves of a tag, oldest first, with what changed between neighbours."""
    with way(workshop).repository(reference) as repository:
        known: dict[Digest, Known | None] = {}

        def look(digest: Digest | None) -> Known | None:
            if digest is not None and digest not in known:
                known[digest] = read_known(repository, digest)
            return known[digest] if digest is not None else None

        steps = []
        for past in read_history(repository, reference.tag or "latest"):
            before, after = look(past.move.before), look(past.move.after)
            changes = difference(before, after) if before is not None and after is not None else None
            steps.append(Step(past, changes))
        return tuple(steps)


# --- copy -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copied:
    """What was carried: the reference's digest, its tags there, and how much was sent."""

    digest: Digest
    tags: tuple[str, ...]
    moved: tuple[Move, ...]
    carried: Carried


def copy(
    source: Address, target: Address, key: VerifyingKey, rules: MirrorRules, workshop: Workshop
) -> tuple[Copied, ...]:
    """Carry an image, or without tag and digest all that a repository's tags name, to another mirror or into a layout,
    with every signature and referrer; verified first to the last byte.

    Raises UsageError, VerificationError, PublicationRefused.
    """
    with (
        way(workshop).repository(source) as here,
        way(workshop).repository(target, create=True) as there,
    ):
        wanted: tuple[str, ...] = (source.tag,) if source.tag else ()
        if not source.tag and source.digest is None:
            wanted = tuple(tag for tag in here.tags() if not is_auxiliary(tag))
        if source.digest is not None:
            return (_carry(here, there, source.digest, (target.tag,) if target.tag else (), key, rules, workshop),)
        by_digest: dict[Digest, list[str]] = {}
        for tag in wanted:
            digest = here.resolve(tag)
            if digest is None:
                raise _no_such_tag(here, tag)
            by_digest.setdefault(digest, []).append(target.tag or tag)
        return tuple(
            _carry(here, there, digest, tuple(tags), key, rules, workshop) for digest, tags in sorted(by_digest.items())
        )


def _carry(
    here: Repository,
    there: Repository,
    digest: Digest,
    tags: tuple[str, ...],
    key: VerifyingKey,
    rules: MirrorRules,
    workshop: Workshop,
) -> Copied:
    held = verified(here, digest, key, workshop, contents=True).held
    carried = carry(held, here, there, store=workshop.store, progress=workshop.progress)
    own = immutable_tag(held.version, held.created, held.digest)
    floating = tuple(tag for tag in tags if tag != own)

    def clear() -> Cleared:
        current = current_images(there, floating, held.digest)
        return replace(clear_held(held, tags, there, key, rules), current=current)

    cleared = clear()
    set_for_ever(there, own, cleared)
    moves, _ = Mover(there, held.version, Why.COPY, clear, workshop.clock).move(floating, cleared)
    return Copied(held.digest, (own, *floating), moves, carried)


def _no_such_tag(repository: Repository, tag: str) -> UsageError:
    return UsageError(
        "reference-missing",
        f"{repository.url} has no tag '{tag}'",
        place=repository.url,
        hint="name another; without a tag, all are copied",
    )
