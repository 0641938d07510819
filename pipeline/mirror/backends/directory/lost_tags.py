"""Make a tag's link again, or put aside what is no tag; keep what it may have led to.

    .quarantine/rotten/tags-HEX/TAG.…       what was in the place of tags; HEX stands for the repository

A mirror that was copied without symbolic links has files in the place of its tags. Such a file has the bytes
of the manifest to which the tag led, so its link is made again. Whoever can put a file there can put a link there as
well: what a tag may point to is said by signed moves, which are verified as before, and not by who made the link.

What another file led to is not known any more. So a pruning ends while they are there, and removes nothing of the
repository while they are in quarantine. Not so for lists of referrers (`sha256-HEX`): a referrer names its subject
itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.atomic_files import replace_symlink
from pipeline.mirror.backends.directory.manifest_files import is_named_rightly, read_regular
from pipeline.mirror.backends.directory.manifest_names import manifest_file_names, named_media_type
from pipeline.mirror.image_tags import named_digest_prefix
from pipeline.mirror.known_blobs import is_folder, set_aside
from pipeline.mirror.protocol import TAG
from pipeline.mirror.retention.reachability import tag_subject

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.mirror_paths import RepositoryPaths


def leads_to_list(tag: str) -> bool:
    """Return whether a tag is one of a list of referrers (`sha256-HEX`)."""
    about = tag_subject(tag)
    return about is not None and about[1]


def tag_target(paths: RepositoryPaths, tag: str) -> Digest | None:
    """Return the digest to which a tag points; None for what is no tag."""
    digest = paths.target(tag) if TAG.fullmatch(tag) else None
    above = (paths.tags / tag).readlink().parent.as_posix() if digest is not None else ""
    return digest if above == "../_manifests" else None


def linked_names(folder: Path) -> set[str]:
    """Return the names of the files to which the tags in a folder lead.

    Without those of lists of referrers.
    """
    links = (path for path in folder.iterdir() if path.is_symlink() and not leads_to_list(path.name))
    return {path.readlink().name for path in links}


def relink_tag(paths: RepositoryPaths, tag: str) -> bool:
    """Replace a file in the place of a tag by a link to the manifest with the same bytes.

    The file's time becomes the tag's. Returns False if it is no regular file, or no manifest of the repository, or
    cannot be read; and for the immutable tag of another image. The caller holds the lock for moving tags.
    """
    read = _read(paths.tags / tag) if TAG.fullmatch(tag) else None
    if read is None:
        return False
    data, seen = read
    digest = Digest.of(data)
    if named_digest_prefix(tag) not in (None, digest.short):
        return False
    for path in (paths.manifests / name for name in manifest_file_names(digest)):
        held = _read(path)
        if held is not None and held[0] == data and is_named_rightly(path, data, named_media_type(path)):
            replace_symlink(f"../_manifests/{path.name}", paths.tags / tag, paths.place.drafts, seen.st_mtime)
            return True
    return False


def _read(path: Path) -> tuple[bytes, os.stat_result] | None:
    """Read a regular file, as `read_regular`; None also where the disk or its mode forbids it."""
    with contextlib.suppress(OSError):
        return read_regular(path)
    return None


def put_tag_aside(root: Path, name: str, path: Path) -> None:
    """Move what is in the place of a tag of the repository `name`, or of all, to quarantine."""
    set_aside(root, path, below="" if leads_to_list(path.name) else _folder_name(name))


def has_lost_tags(root: Path, name: str) -> bool:
    """Return whether something that was in the place of a repository's tag is in quarantine."""
    quarantine = root / ".quarantine"
    rotten = quarantine / "rotten"
    aside = rotten / _folder_name(name)
    return all(map(is_folder, (quarantine, rotten, aside))) and any(aside.iterdir())


def lost_tag(root: Path, path: Path) -> VerificationError:
    """Make the error of what is in the place of a tag, or of a repository's tags, and is none."""
    return VerificationError(
        "tag-damaged",
        f"'{path.relative_to(root)}' is no link to a manifest, so what it led to is not known: nothing is pruned",
        place=str(path),
        hint=f"run `relbuild scrub dir:{root}` first, which makes the link again where the file is a manifest, else "
        "puts it aside; what that may have led to stays until it leaves quarantine",
    )


def misplaced_tag(root: Path, path: Path) -> VerificationError:
    """Make the error of what is in the place of a tag that somebody reads, and is none."""
    return VerificationError(
        "tag-damaged",
        f"'{path.relative_to(root)}' is no symbolic link to a manifest, so what the tag leads to is not known",
        place=str(path),
        hint=f"copy the mirror again with its links (`cp -a`, its rsync.sh), or run `relbuild scrub dir:{root}`, which "
        "makes the link again where the file is a manifest",
    )


def _folder_name(name: str) -> str:
    return f"tags-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
