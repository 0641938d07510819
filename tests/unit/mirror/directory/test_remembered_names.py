"""A store remembers the name of each directory mirror, and signs under no other."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cli import nightly_run
from pipeline.errors import RelbuildError, UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory import directory_mirror, mirror_marker
from pipeline.mirror.backends.directory.directory_address_form import MARKER
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.directory.mirror_marker import restore_marker
from pipeline.model.scrub import RepairOutcome, ScrubbedObject
from pipeline.release import scrub
from pipeline.release.current_images import mirror_access
from pipeline.release.publish_members import IndexOptions, publish_index
from tests.support.moved_tags import HOST, at
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.signing_examples import PROVENANCE_VALUE

OTHER_HOST = "registry.example/staging"


def renamed(root: Path, host: str = OTHER_HOST) -> None:
    """What one does who can write to a mirror and not sign: publishers would sign under another mirror's name."""
    (root / MARKER).write_text(json.dumps({"format": 1, "host": host}))


def writing(root: Path, maker: ImagePublisher) -> list[tuple[str, Callable[[], object]]]:
    """All ways in which a mirror is opened to be signed on."""
    access, address = mirror_access(maker.build_env), parse_address(f"dir:{root}")

    def to_publish() -> None:
        with access.mirror(address, create=True):
            pass

    def to_move() -> None:
        with access.repository(at(root), write=True):
            pass

    def to_copy() -> None:
        with access.repository(at(root), create=True, write=True):
            pass

    def to_renew() -> None:
        request = SimpleNamespace(to=address)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nightly_run, "_prepared", lambda *_: (maker.build_env, SimpleNamespace(settings=None), {}))
            patch.setattr(nightly_run, "renew_tags", lambda *_: None)
            nightly_run.renew_night(request, None, SimpleNamespace(products=()))  # type: ignore[arg-type]

    def to_join() -> None:
        image = maker.image("1.0").digest
        options = IndexOptions("small", (image,), address, key(), PROVENANCE_VALUE, image, RULES)
        try:
            publish_index(options, maker.build_env)
        except RelbuildError as error:  # this image is no member, or not here
            if error.code == "mirror-host":
                raise

    ways = [("publish", to_publish), ("move", to_move), ("copy", to_copy)]
    return [*ways, ("renew", to_renew), ("join", to_join)]


def test_a_mirror_with_another_name_than_the_store_remembers_is_not_signed_on(
    published: Path, maker: ImagePublisher
) -> None:
    for _, act in writing(published, maker):
        act()
    renamed(published)
    for name, act in writing(published, maker):
        with pytest.raises(UsageError) as caught:
            act()
        (problem,) = caught.value.problems
        assert problem.code == "mirror-host" and f"--as {HOST}" in (problem.hint or ""), name
    (found,) = scrub(parse_address(f"dir:{published}"), maker.build_env, known_as=HOST).findings
    assert (found.thing, found.fate) == (ScrubbedObject.MARKER, RepairOutcome.HEALED)
    for _, act in writing(published, maker):
        act()
    assert not scrub(parse_address(f"dir:{published}"), maker.build_env).findings


def test_a_name_that_is_meant_to_change_is_stated_once(published: Path, maker: ImagePublisher) -> None:
    address = parse_address(f"dir:{published}")
    for _, act in writing(published, maker):
        act()
    renamed(published)
    assert not scrub(address, maker.build_env, known_as=OTHER_HOST).findings
    for _, act in writing(published, maker):
        act()
    renamed(published, HOST)
    with mirror_access(maker.build_env).mirror(address, create=True, name=HOST):
        pass
    for _, act in writing(published, maker):
        act()


def test_a_mirror_that_is_made_anew_at_the_same_place_has_the_name_that_it_is_given(
    published: Path, maker: ImagePublisher
) -> None:
    writing(published, maker)[0][1]()
    shutil.rmtree(published)
    with mirror_access(maker.build_env).mirror(parse_address(f"dir:{published}"), create=True, name=OTHER_HOST):
        pass
    for _, act in writing(published, maker):
        act()


def test_the_name_that_signs_is_compared_and_not_what_the_file_says_by_then(
    published: Path, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who flips the file back and forth has it read twice."""
    for _, act in writing(published, maker):
        act()
    opening = directory_mirror.open_directory

    def flipped(*args: object, **options: object) -> DirectoryMirror:
        renamed(published)
        try:
            return opening(*args, **options)  # type: ignore[arg-type]
        finally:
            renamed(published, HOST)

    monkeypatch.setattr(directory_mirror, "open_directory", flipped)
    for name, act in writing(published, maker):
        with pytest.raises(UsageError, match="mirror-host"):
            act()
            pytest.fail(name)


@pytest.mark.parametrize("text", ["", "{"])
def test_a_lost_name_is_the_remembered_one_and_no_other_is_remembered_unless_a_person_states_it(
    published: Path, maker: ImagePublisher, text: str
) -> None:
    """Also where somebody removed what is signed under it, and put another mirror's images beside."""
    address = parse_address(f"dir:{published}")
    for _, act in writing(published, maker):
        act()
    (published / MARKER).write_text(text)
    (found,) = scrub(address, maker.build_env).findings
    assert found.source == f"the name that this store remembers: {HOST}"
    other = published.with_name("other")
    mirror = open_directory(other, create=True, clock=maker.clock, host=OTHER_HOST)
    maker.publish(mirror.repository("small"), maker.image("1.0"))
    for part in ("blobs", "repositories"):
        shutil.rmtree(published / part)
        shutil.copytree(other / part, published / part, symlinks=True)
    (published / MARKER).write_text(text)
    with pytest.raises(UsageError, match="mirror-host") as caught:
        scrub(address, maker.build_env)
    assert f"--as {OTHER_HOST}" in (caught.value.problems[0].hint or "")
    assert scrub(address, maker.build_env, known_as=OTHER_HOST).findings
    for _, act in writing(published, maker):
        act()


def test_scrub_as_writes_a_name_under_which_images_are_signed(published: Path, maker: ImagePublisher) -> None:
    """Also with a store that has not seen the mirror; and no name under which nothing is signed."""
    renamed(published)
    address = parse_address(f"dir:{published}")
    (found,) = scrub(address, maker.build_env, known_as=HOST).findings
    assert found.source == f"--as: {HOST}" and mirror_marker.read_host(published) == HOST
    with pytest.raises(UsageError, match="mirror-host"):
        scrub(address, maker.build_env, known_as="registry.example/third")
    assert mirror_marker.read_host(published) == HOST


def test_scrub_warns_of_another_name_than_the_store_remembers_and_goes_on(
    published: Path, maker: ImagePublisher
) -> None:
    """It may have been meant to change, and be stated in another publisher's store: it is not written back."""
    writing(published, maker)[0][1]()
    renamed(published)
    told: list[str] = []
    assert restore_marker(published, time.time, "", HOST, told.append) is None
    assert len(told) == 1 and f"--as {HOST}" in told[0] and f"--as {OTHER_HOST}" in told[0]
    assert not scrub(parse_address(f"dir:{published}"), maker.build_env).findings
    assert mirror_marker.read_host(published) == OTHER_HOST
    scrub(parse_address(f"dir:{published}"), maker.build_env, known_as=HOST)
    assert mirror_marker.read_host(published) == HOST


def test_scrub_warns_of_a_name_under_which_nothing_is_signed(published: Path, maker: ImagePublisher) -> None:
    renamed(published)
    told: list[str] = []
    assert restore_marker(published, time.time, "", "", told.append) is None
    (message,) = told
    assert OTHER_HOST in message and f"--as {HOST}" in message


def test_a_planted_format_is_overwritten_with_a_name_that_the_content_has(
    published: Path, maker: ImagePublisher
) -> None:
    """Or with that which the store remembers; with no other one."""
    address = parse_address(f"dir:{published}")
    for text in ('{"format":2}', f'{{"format":-1{"0" * 4000}}}'):
        (published / MARKER).write_text(text)
        for name in ("", OTHER_HOST):
            with pytest.raises(UsageError, match="mirror-format") as caught:
                scrub(address, maker.build_env, known_as=name)
            assert len(caught.value.problems[0].message) < 300 + len(str(published))
        (found,) = scrub(address, maker.build_env, known_as=HOST).findings
        assert found.fate is RepairOutcome.HEALED and mirror_marker.read_host(published) == HOST
