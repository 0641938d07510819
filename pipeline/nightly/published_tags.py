"""Read the tags of published products; an unreadable one is an error, not a missing one."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, RelbuildError
from pipeline.mirror.protocol import Repository


def read_tag(repository: Repository, tag: str) -> Digest | None:
    """Resolve a tag, None if it does not exist. Raises PublicationRefused `tag-unreadable`."""
    try:
        return repository.resolve(tag)
    except RelbuildError as error:
        raise PublicationRefused(
            "tag-unreadable",
            f"tag '{tag}' cannot be read, so a new image could not be published: {error}",
            place=repository.url,
            hint=error.problems[0].hint or "repair the tag on the mirror, or remove it there if it is not needed",
        ) from error


def require_readable_tags(repository: Repository, tags: Iterable[str]) -> None:
    """Refuse a product of which a tag cannot be read: publishing would read it and fail.

    Raises PublicationRefused `tag-unreadable` for the first.
    """
    for tag in dict.fromkeys(tags):
        read_tag(repository, tag)
