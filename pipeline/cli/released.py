"""The results of publishing, moving, copying, verifying and pruning.

What was published, moved, copied, verified or found in the history: as lines for people, and as values.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.cli.progress import size_text
from pipeline.mirror.differences import Difference
from pipeline.mirror.retention.model import Pruned, Undone
from pipeline.mirror.verification import Verified
from pipeline.model.enforcement import LimitEnforcement, enforcement_lines
from pipeline.model.publication import Move, Publication
from pipeline.release import Copied, Moved, Step

_GOING = 30
"""Tags and manifests that go that a terminal shows."""

_SHOWN = 12
"""Packages of a change that a terminal shows."""


def published_as_lines(done: Publication) -> tuple[str, ...]:
    """Format the result of a publication as lines for people."""
    return tuple(_published(done))


def _published(done: Publication) -> Iterator[str]:
    yield f"{done.repository}:{done.immutable}  {done.digest}"
    yield from (f"  {line}" for line in enforcement_lines(done.limits))
    if not done.uploaded and not done.moved:
        yield "  nothing changed: all of it was there, and no tag was moved"
        return
    sent = f"{len(done.uploaded)} sent ({size_text(done.bytes_uploaded)})"
    yield f"  {sent}, {len(done.mounted)} mounted, {len(done.present)} there before"
    yield from (f"  {_move(move)}" for move in done.moved)
    if done.unmoved:
        yield f"  not moved, for they point there: {', '.join(done.unmoved)}"


def limits_as_json(limits: tuple[LimitEnforcement, ...]) -> list[dict[str, object]]:
    """The limits of the tested instances, as asked and as enforced, in JSON values."""
    return [
        {"name": limit.name, "asked": limit.asked, "enforced": limit.enforced, "reason": limit.reason or None}
        for limit in limits
    ]


def _move(move: Move) -> str:
    return f"{move.tag}: {move.before.short if move.before else 'new'} → {move.after.short}"


def published_as_json(done: Publication) -> dict[str, object]:
    """The same as a value."""
    return {
        "repository": done.repository,
        "digest": str(done.digest),
        "immutable_tag": done.immutable,
        "moved": [move_as_json(move) for move in done.moved],
        "unmoved": list(done.unmoved),
        "uploaded": [{"digest": str(digest), "size": size} for digest, size in done.uploaded],
        "bytes_uploaded": done.bytes_uploaded,
        "mounted": [str(digest) for digest in done.mounted],
        "present": [str(digest) for digest in done.present],
        "attached": [str(digest) for digest in done.attached],
        "limits": limits_as_json(done.limits),
    }


def move_as_json(move: Move) -> dict[str, object]:
    """A move of a tag; `at` in milliseconds since the epoch."""
    return {
        "tag": move.tag,
        "from": str(move.before) if move.before else None,
        "to": str(move.after),
        "at": move.at,
        "why": str(move.why),
        "version": move.version,
    }


def moved_as_lines(moved: Moved) -> tuple[str, ...]:
    """Format the result of promoting or rolling back as lines for people."""
    what = f"{moved.repository}:{moved.tag}"
    if moved.moved is None:
        return (f"{what} points to {moved.digest} already",)
    before = moved.moved.before
    return (f"{what}: {before or 'new'} → {moved.digest}" + (f" ({moved.version})" if moved.version else ""),)


def moved_as_json(moved: Moved) -> dict[str, object]:
    """The same as a value."""
    return {
        "repository": moved.repository,
        "tag": moved.tag,
        "digest": str(moved.digest),
        "version": moved.version,
        "moved": move_as_json(moved.moved) if moved.moved else None,
    }


def copied_as_lines(done: Copied) -> tuple[str, ...]:
    """Format the result of a copy as lines for people: what was sent, and which tags moved."""
    carried = done.carried
    sent = sum(size for _, size in carried.uploaded)
    return (
        f"{done.digest}  {', '.join(done.tags)}",
        f"  {len(carried.uploaded)} sent ({size_text(sent)}), {len(carried.present)} there before, "
        f"{len(carried.referrers)} referrers new",
        *(f"  {_move(move)}" for move in done.moved),
    )


def copied_as_json(done: Copied) -> dict[str, object]:
    """The same as a value."""
    return {
        "digest": str(done.digest),
        "tags": list(done.tags),
        "moved": [move_as_json(move) for move in done.moved],
        "uploaded": [{"digest": str(digest), "size": size} for digest, size in done.carried.uploaded],
        "referrers": [str(digest) for digest in done.carried.referrers],
    }


def verified_as_lines(found: Verified) -> tuple[str, ...]:
    """Format the result of a verification as lines for people."""
    return tuple(_verified(found))


def _verified(found: Verified) -> Iterator[str]:
    yield f"{found.held.digest}: every digest, signature and attestation holds, and the tests' answers are right"
    yield f"  signed as {', '.join(found.identities)}; {size_text(found.bytes_read)} of blobs read"
    yield from (f"  {line}" for line in enforcement_lines(found.limits))
    if found.tag is not None:
        until = datetime.fromtimestamp(found.tag.until / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield f"  '{found.tag.tag}' points here by its move {found.tag.number}, believable until {until}" + (
            ": STALE, taken all the same" if found.tag.stale else ""
        )
    if found.held.end_of_life:
        yield f"  end of life: {found.held.end_of_life}"
    for digest, types in found.attested:
        yield f"  {digest.short}  {', '.join(sorted(one.removeprefix('https://') for one in types))}"


def verified_as_json(found: Verified) -> dict[str, object]:
    """The same as a value."""
    return {
        "digest": str(found.held.digest),
        "images": [str(image.digest) for image in found.held.images],
        "end_of_life": found.held.end_of_life or None,
        "identities": list(found.identities),
        "attested": {str(digest): list(types) for digest, types in found.attested},
        "bytes_read": found.bytes_read,
        "limits": limits_as_json(found.limits),
        "tag": None
        if found.tag is None
        else {
            "name": found.tag.tag,
            "signed_as": found.tag.identity,
            "number": found.tag.number,
            "until": found.tag.until,
            "stale": found.tag.stale,
        },
    }


def history_as_lines(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """A tag's history, the newest last."""
    return tuple(line for step in steps for line in _step(step))


def _step(step: Step) -> Iterator[str]:
    move = step.past.move
    when = datetime.fromtimestamp(move.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    yield (
        f"{when}  {move.why:<8}  {move.version or '':<12}  {move.after}"
        + ("" if step.past.happened else "  (written down, not made)")
        + ("" if step.past.signed else "  (nobody signed it)")
    )
    if step.changes is not None:
        yield from (f"    {line}" for line in _changes(step.changes))


def _changes(changes: Difference) -> Iterator[str]:
    lines = [
        *(f"~ {name} {before} → {after}" for name, before, after in changes.changed),
        *(f"+ {package}" for package in changes.added),
        *(f"- {package}" for package in changes.removed),
    ]
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"… and {len(lines) - _SHOWN} packages more (--json has all)"
    if changes.fixed:
        yield f"fixes: {', '.join(changes.fixed[:_SHOWN])}" + (" …" if len(changes.fixed) > _SHOWN else "")
    if changes.grew:
        yield f"{'+' if changes.grew > 0 else '-'}{size_text(abs(changes.grew))} compressed"


def history_as_json(steps: tuple[Step, ...]) -> list[dict[str, object]]:
    """The same as values."""
    return [
        {
            **move_as_json(step.past.move),
            "happened": step.past.happened,
            "record": step.past.record,
            "number": step.past.number or None,
            "signed": step.past.signed,
            "changes": None
            if step.changes is None
            else {
                "added": list(step.changes.added),
                "removed": list(step.changes.removed),
                "changed": [list(one) for one in step.changes.changed],
                "fixed": list(step.changes.fixed),
                "grew": step.changes.grew,
            },
        }
        for step in steps
    ]


def pruned_as_lines(done: Pruned) -> tuple[str, ...]:
    """Format what was removed from a mirror, or would be, as lines for people."""
    return tuple(_pruned(done))


def _pruned(done: Pruned) -> Iterator[str]:
    plan = done.plan
    yield from (f"note: {note}" for note in plan.notes)
    if plan.empty:
        yield f"{done.mirror}: nothing goes" + (f"; {len(plan.spared)} too young to go" if plan.spared else "")
        return
    if done.dry_run:
        for one in (*plan.tags, *plan.manifests)[:_GOING]:
            yield f"  {one}"
        more = len(plan.tags) + len(plan.manifests) - _GOING
        if more > 0:
            yield f"  … and {more} more (--json has all)"
    yield (
        f"{done.mirror}: {len(plan.tags)} tags, {len(plan.manifests)} manifests and {len(plan.blobs)} blobs "
        f"{'would go' if done.dry_run else 'are gone'}, {size_text(done.size)}"
        + (f"; {len(plan.spared)} too young to go" if plan.spared else "")
    )
    yield from (f"  cannot be removed here: {one}" for one in done.refused)
    if done.stamp:
        yield f"  moved aside: `relbuild prune {done.mirror} --undo {done.stamp}` brings it back"
    if done.size_after:
        yield f"  the registry's garbage collection frees {size_text(done.size_after)} of it:"
        yield from (f"    {line}" for line in done.instructions)


def undone_as_lines(done: Undone) -> tuple[str, ...]:
    """Format what was brought back to a mirror as lines for people."""
    return (
        f"{done.mirror}: {len(done.tags)} tags, {done.manifests} manifests and {done.blobs} blobs are back "
        f"(of {', '.join(done.stamps)})",
        *(f"  left as it is now: {repository}:{tag}" for repository, tag in done.left),
    )
