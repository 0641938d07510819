"""Publish images, tell what was done, and remember it to recognise the next publication."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cli.app import CommandContext
from pipeline.cli.key_files import PASSWORD_VARIABLES, open_former_keys, open_signing_key
from pipeline.cli.messages import print_lines
from pipeline.cli.move_format import limits_as_json, move_as_json, move_text
from pipeline.cli.progress_display import bytes_text
from pipeline.cli.remembered_builds import WarningLog
from pipeline.cli.remembered_publications import (
    PublishRequest,
    RememberedPublication,
    look_at_key,
    look_at_rules,
)
from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.damage_memory import DamageMemory
from pipeline.mirror.tag_memory import TagMemory
from pipeline.model.enforcement import enforcement_lines
from pipeline.model.publication import Publication
from pipeline.prepare import BuildEnvironment
from pipeline.release import PublishOptions, publish, rules_for
from pipeline.release.publish import member_layouts
from pipeline.reports import report_folder
from pipeline.snapshots import (
    START,
    library_records,
    loaded_files,
    look_at_output,
    mapped_files,
    process_started,
    program_digest,
)
from pipeline.transfer import KnownAnswer, QuestionLog

STAMPED = 1 << 20
"""Bytes from which a file of a layout is compared by its stamp: layers, whose bytes a publication does not read."""

_ENCRYPTED = b"ENCRYPTED"
"""In the text of every form of a private key with a password."""


def run_publish(
    request: PublishRequest, name: Digest | None, context: CommandContext, *, sources: bool, read_back: bool
) -> tuple[dict[str, object], ...]:
    """Publish, tell people what was done, and return the answers.

    `name`: that under which it is remembered; None if it is not.
    """
    told = WarningLog(context.progress)
    context = replace(context, progress=told)
    build_env = context.build_env()
    started = context.clock()
    snapshot = _Snapshot(request, build_env, started)
    before = snapshot.inputs() if name is not None else None  # Before key and rules are read.
    options = PublishOptions(
        layouts=request.layouts,
        to=request.to,
        key=open_signing_key(request.key, context),
        rules=rules_for(request.to, request.rules, signs=True),
        tags=request.tags or None,
        sources=sources,
        known_as=request.known_as,
        read_back=read_back,
        former=open_former_keys(request.former, context),
    )
    log = QuestionLog()
    done = publish(options, build_env, log)
    for one in done:
        print_lines(*published_as_lines(one))
    if name is not None and before is not None and len(done) == 1 and not told.warnings:
        with contextlib.suppress(OSError, ValueError, LookupError, RelbuildError):
            remembered = snapshot.remembered(done[0], log, before, options.key.public.fingerprint)
            if remembered is not None:
                build_env.store.remember(name, remembered)
    return tuple(published_as_json(one) for one in done)


class _Snapshot:
    """Snapshot of all that a publication reads on this machine."""

    def __init__(self, request: PublishRequest, build_env: BuildEnvironment, started: float) -> None:
        self._request = request
        self._build_env = build_env
        self._started = started
        self._damage = DamageMemory(build_env.store, request.to.url).latest()

    def inputs(self) -> dict[str, object] | None:
        """Return key, rules, layouts and reports as they are now; None if they cannot be told."""
        with contextlib.suppress(OSError, RelbuildError):
            key, rules = look_at_key(self._request.key, self._build_env.store), look_at_rules(self._request.rules)
            if key is None or (rules is None) != (self._request.rules is None) or self._asks_for_password():
                return None
            folders = [
                (str(folder.absolute()), _entries(folder))
                for layout in self._request.layouts
                for member in dict.fromkeys((layout, *member_layouts(layout)))
                for folder in (member, report_folder(member))
                if folder.is_dir()
            ]
            if any(-1 in entries.values() for _, entries in folders):
                return None
            return {"key": key, "rules": rules, "folders": folders}
        return None

    def _asks_for_password(self) -> bool:
        """Return whether the key's password is got from a person, who must be there each time."""
        given = any(name in self._build_env.environment for name in PASSWORD_VARIABLES)
        return not given and _ENCRYPTED in self._request.key.read_bytes()

    def remembered(
        self, one: Publication, log: QuestionLog, before: Mapping[str, object], key: Digest
    ) -> dict[str, object] | None:
        """Return the fields of a `RememberedPublication`.

        None if it changed something, or cannot be recognised.
        """
        answers = _asked_again(log.answers(), one)
        changed = one.uploaded or one.mounted or one.moved or one.attached
        if changed or not one.settled_until or not answers or self.inputs() != before:
            return None
        modules = sorted({name.partition(".")[0] for name in sys.modules})
        programs = sorted({*loaded_files(), *mapped_files(), *library_records()})
        code, newest = program_digest(programs, frozenset(modules))
        if newest >= (process_started(self._build_env.clock()) - START) * 1e9:
            return None
        memory = TagMemory(self._build_env.store)
        made = RememberedPublication(
            made=self._started,
            damage=self._damage,
            settled_until=one.settled_until,
            folders=(),
            key="",
            rules=None,
            numbers=[(one.repository, tag, str(key), memory.seen(one.repository, tag, key)) for tag in one.unmoved],
            programs=programs,
            modules=modules,
            code=code,
            questions=[{field: getattr(known, field) for field in KnownAnswer.__slots__} for known in answers],
            scopes=log.scopes,
            lines=list(published_as_lines(one)),
            answer=published_as_json(one),
        )
        return {**{field: getattr(made, field) for field in RememberedPublication.__slots__}, **before}


def _asked_again(answers: Sequence[KnownAnswer], one: Publication) -> list[KnownAnswer]:
    """Return the questions that a recognised publication asks again.

    Of blobs only those of the image: the payloads of what was signed are asked for by ordinary publications, at least
    once a day, and with `--read-back`.
    """
    image = {str(digest) for digest in one.present}
    return [each for each in answers if "/blobs/" not in each.target or each.target.rpartition("/")[2] in image]


def _entries(folder: Path) -> dict[str, object]:
    """Return the entries of a layout or report: by content, those as large as a layer by stamp."""
    large = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.lstat().st_size > STAMPED}
    return look_at_output(str(folder), large)


def published_as_lines(done: Publication) -> Iterator[str]:
    """Format the result of a publication as lines for people."""
    yield f"{done.repository}:{done.immutable}  {done.digest}"
    yield from (f"  {line}" for line in enforcement_lines(done.limits))
    if not done.uploaded and not done.moved:
        yield "  unchanged: all content was present, and no tag was moved"
        return
    sent = f"{len(done.uploaded)} uploaded ({bytes_text(done.bytes_uploaded)})"
    yield f"  {sent}, {len(done.mounted)} mounted, {len(done.present)} already present"
    if done.requests:
        kinds = ", ".join(f"{number} {kind}" for kind, number in done.requests)
        yield f"  {sum(number for _, number in done.requests)} requests: {kinds}"
    yield from (f"  {move_text(move)}" for move in done.moved)
    if done.unmoved:
        yield f"  tags already there: {', '.join(done.unmoved)}"
    yield from _doubled_name(done)


def _doubled_name(done: Publication) -> Iterator[str]:
    """Yield a note where a registry's repository was begun whose namespace ends with its name.

    `--to registry://HOST/team/redis` looks like the image's reference elsewhere, and names a mirror here.
    """
    scheme, slashes, place = done.repository.partition("://")
    host, *path = place.split("/")
    begun = not done.unmoved and all(move.before is None for move in done.moved)
    if slashes and begun and len(path) > 1 and path[-1] == path[-2]:
        there, wanted = "/".join(path), "/".join(path[:-1])
        mirror = "/".join((f"{scheme}://{host}", *path[:-2]))
        yield f"note: the repository is '{there}', as --to names a mirror; --to {mirror} would publish to '{wanted}'"


def published_as_json(done: Publication) -> dict[str, object]:
    """Format the result of a publication as JSON values."""
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
        "requests": dict(done.requests),
    }
