"""`publish --to` of an image's reference where a mirror is wanted is noted, once, with the mirror's address."""

from __future__ import annotations

import pytest

from pipeline.cli.publish_run import published_as_lines
from pipeline.digest import Digest
from pipeline.model.publication import Move, MoveCause, Publication

OLD, NEW = Digest.of(b"old"), Digest.of(b"new")


def notes(repository: str, *, before: Digest | None = None, unmoved: tuple[str, ...] = ()) -> list[str]:
    done = Publication(
        repository=repository,
        digest=NEW,
        immutable="1-20261101-0123456789ab",
        moved=(Move("1", None, NEW, 0, MoveCause.PUBLISH), Move("latest", before, NEW, 0, MoveCause.PUBLISH)),
        unmoved=unmoved,
        uploaded=((NEW, 9),),
        mounted=(),
        present=(),
        attached=(),
    )
    return [line for line in published_as_lines(done) if line.startswith("note: ")]


@pytest.mark.parametrize(
    ("repository", "there", "mirror", "wanted"),
    [
        ("registry://host.example/team/redis/redis", "team/redis/redis", "registry://host.example/team", "team/redis"),
        ("registry+http://127.0.0.1:5000/redis/redis", "redis/redis", "registry+http://127.0.0.1:5000", "redis"),
    ],
)
def test_a_repository_whose_namespace_ends_with_its_name_is_noted(
    repository: str, there: str, mirror: str, wanted: str
) -> None:
    assert notes(repository) == [
        f"note: the repository is '{there}', as --to names a mirror; --to {mirror} would publish to '{wanted}'"
    ]


@pytest.mark.parametrize(
    "repository",
    [
        "registry://redis/redis",
        "registry://host.example/team/redis",
        "registry://host.example/redis/nginx",
        "dir:/m/redis/redis",
    ],
)
def test_no_other_repository_is_noted(repository: str) -> None:
    assert notes(repository) == []


def test_it_is_noted_where_a_repository_is_begun_and_not_each_night() -> None:
    repository = "registry://host.example/team/redis/redis"
    assert notes(repository, before=OLD) == [] and notes(repository, unmoved=("2",)) == []
