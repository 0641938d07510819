"""What comes from a cluster, and what stands in locks and records of nights, may be anybody's."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, ResolutionError, VerificationError
from pipeline.model.night_record import Outcome, Product, ProductRun
from pipeline.model.published_image import PublishedImage
from pipeline.nightly.executors import task_inputs
from pipeline.nightly.executors.dask.progress_message import EVENTS_LIMIT, ProgressMessage
from pipeline.nightly.executors.executor_protocol import TaskResult
from pipeline.nightly.executors.progress_ipc import (
    RUNNING_LIMIT,
    EventKind,
    ProgressEvent,
    ProgressReceiver,
)
from pipeline.nightly.executors.task_inputs import pack_files, unpack_files
from pipeline.nightly.executors.task_result import RESULT_LIMIT, read_result, result_bytes
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct
from pipeline.nightly.job import JobResult
from pipeline.nightly.job_result_check import require_same_product
from pipeline.nightly.previous_night import PreviousNight
from pipeline.progress import QUIET
from pipeline.resolve import parse_lock
from tests.unit.resolve.test_lock import GOOD

PRODUCT = Product(
    "it",
    "recipes/it.yaml",
    "el9",
    "x86_64",
    ProductRun(Outcome.BUILT, "packages changed"),
    PublishedImage(digest=Digest.of(b"x")),
)
WORKED = JobResult(
    PRODUCT, PublishedProduct(InputsRecord((("recipe", "1"),), (), GOOD), Digest.of(b"x"), "1-2025", PRODUCT), GOOD
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)

# --- what workers answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ended",
    [
        TaskResult("it", WORKED, worker="one"),
        TaskResult("it", "a text with a name that is no UTF-8: \udcff", worker="one"),
        TaskResult("it", None, "its process ended by signal 9", "one", "disk full"),
        TaskResult("it", "failed", worker="one", fault="no emulator", unsuitable=True),
    ],
)
def test_an_answer_arrives_as_it_was(ended: TaskResult) -> None:
    assert read_result(result_bytes(ended)) == ended


class Trap:
    """Unpickling this would run a function."""

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _sprung, ()


def _sprung() -> object:
    raise AssertionError("a worker's answer was unpickled")


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Trap()),
        pickle.dumps(TaskResult("it", Trap())),
        b"",
        b"null",
        b"[" * 100_000,
        b"9" * 5000,
        b'{"name":"it"}',
        result_bytes(TaskResult("it")).replace(b'"lost":""', b'"lost":3'),
        result_bytes(TaskResult("it")).replace(b'"lost":""', b'"lost":"","more":1'),
        result_bytes(TaskResult("it", WORKED)).replace(b'"outcome":"built"', b'"outcome":"won"'),
        b" " * (RESULT_LIMIT + 1),
        "text",
        None,
    ],
)
def test_an_answer_that_is_none_is_refused_and_nothing_of_it_runs(data: object) -> None:
    with pytest.raises((ValueError, VerificationError)):
        read_result(data)


def test_an_answer_that_is_too_large_or_of_another_kind_says_so() -> None:
    assert "the limit is" in read_result(result_bytes(TaskResult("it", "x" * RESULT_LIMIT, worker="one"))).lost
    assert read_result(result_bytes(TaskResult("it", {"a": 1}, worker="one"))).lost == "it returned a dict"


@pytest.mark.parametrize("change", [{"name": "other"}, {"platform": "el10"}, {"arch": "aarch64"}, {"parent": "base"}])
def test_an_answer_for_another_product_is_refused(change: dict[str, str]) -> None:
    require_same_product(PRODUCT, replace(PRODUCT, run=replace(PRODUCT.run, outcome=Outcome.UNCHANGED)))
    with pytest.raises(PublicationRefused) as refused:
        require_same_product(replace(PRODUCT, **change), PRODUCT)  # type: ignore[arg-type]
    assert refused.value.code == "answer-foreign"


# --- what they tell meanwhile -------------------------------------------------------------------------------


@given(anything)
def test_a_message_that_no_worker_sends_is_passed_over(event: object) -> None:
    assert ProgressMessage.of_night(event, "night") is None
    assert ProgressMessage.of_night((1.0, ["night", event, event, event, event]), "night") is None
    heard = ProgressMessage.of_night(
        (1.0, ["night", "it", "1", "one", [["warn", 0, "", event, None, "", False]]]), "night"
    )
    assert heard is None or (isinstance(event, str) and heard.events[0].text == event)


@pytest.mark.parametrize(
    "events",
    [
        [["warn", 0, "", "x" * 5000, None, "", False]],
        [["start", -1, "", "x", None, "", False]],
        [["start", 1, "", "x", 1 << 70, "", False]],
        [["start", True, "", "x", None, "", False]],
        [["explode", 1, "", "x", None, "", False]],
        [["start", 1, "", "x", None, "", False, "more"]],
        [["warn", 0, "", "x", None, "", False]] * (EVENTS_LIMIT + 1),
        {"a": 1},
    ],
)
def test_events_beyond_their_bounds_are_passed_over(events: object) -> None:
    assert ProgressMessage.of_night((1.0, ["night", "it", "1", "one", events]), "night") is None


def test_a_text_that_is_too_long_is_cut_where_it_is_told() -> None:
    said = ProgressMessage("night", "it", "1", "one", (ProgressEvent(EventKind.WARN, text="x" * 100_000),)).plain()
    heard = ProgressMessage.of_night((1.0, said), "night")
    assert heard is not None and 0 < len(heard.events[0].text) < 100_000


def test_tasks_that_are_begun_without_end_take_bounded_memory() -> None:
    listener = ProgressReceiver(QUIET, "it")
    for number in range(2 * RUNNING_LIMIT):
        listener.receive(ProgressEvent(EventKind.START, number, "build", "x"))
    assert len(listener._running) == RUNNING_LIMIT
    listener.receive(ProgressEvent(EventKind.FINISH, 2 * RUNNING_LIMIT, amount=1))  # Of one that was passed over.
    listener.end()


# --- the files that come with a task ------------------------------------------------------------------------


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o6777
    return info


@pytest.mark.parametrize(
    "packed",
    [
        archive((member("../outside"), b"x")),
        archive((member("a/../../outside"), b"x")),
        archive((member("/outside"), b"x")),
        archive((member("link", tarfile.SYMTYPE, "/"), b"")),
        archive((member("link", tarfile.LNKTYPE, "/etc/passwd"), b"")),
        archive((member("fifo", tarfile.FIFOTYPE), b"")),
        archive((member("device", tarfile.CHRTYPE), b"")),
        b"no archive",
        archive((member("a"), b"x" * 10_000))[:-30],
    ],
    ids=["out", "out-of-a-folder", "absolute", "symlink", "hard-link", "fifo", "device", "no-archive", "cut-short"],
)
def test_files_that_lead_out_of_their_folder_are_not_unpacked(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(VerificationError) as refused:
        unpack_files(packed, tmp_path / "there")
    assert refused.value.code == "files-malformed"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not any(path.is_symlink() for path in (tmp_path / "there").rglob("*"))


def test_files_that_grow_when_they_are_unpacked_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive((member("zeros"), bytes(1 << 20)))
    assert len(bomb) < 10_000
    monkeypatch.setattr(task_inputs, "UNPACKED_LIMIT", 100_000)
    for packed in (bomb, archive(*((member(f"f{number}"), b"") for number in range(300)))):
        with pytest.raises(VerificationError, match="more than 100000 bytes"):
            unpack_files(packed, tmp_path)


def test_no_file_of_a_task_lends_rights(tmp_path: Path) -> None:
    unpack_files(archive((member("tool"), b"#!/bin/sh\n")), tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o7000 == 0
    unpack_files(pack_files([tmp_path / "tool"]), tmp_path / "again")


# --- locks and records of nights ----------------------------------------------------------------------------


@given(st.text(max_size=200), st.integers(0, len(GOOD)), st.integers(0, 40))
def test_a_lock_that_was_edited_anyhow_is_a_lock_or_an_error_that_says_so(text: str, at: int, cut: int) -> None:
    with contextlib.suppress(ResolutionError):
        parse_lock(GOOD[:at] + text + GOOD[at + cut :], "it.lock")


@pytest.mark.parametrize(
    "text",
    [
        "format = " + "9" * 5000,
        "format = 2\nrecipe = " + "[" * 100_000,
        GOOD.replace("size = 10", "size = " + "9" * 5000),
        GOOD.replace("size = 10", "size = inf"),
        GOOD.replace("size = 10", "size = 2025-13-77"),
        GOOD + "\n[section.inputs]\n" * 3,
        "\0",
        "a.b.c = 1\n" * 1000,
    ],
)
def test_a_hostile_lock_is_an_error_with_its_own_code(text: str) -> None:
    with pytest.raises(ResolutionError) as refused:
        parse_lock(text, "it.lock")
    assert refused.value.code in ("lock-malformed", "lock-newer-format")


@given(anything)
def test_a_hostile_record_of_a_night_is_told_and_nothing_else(value: object) -> None:
    with contextlib.suppress(ValueError, TypeError):
        text = json.dumps({"format": 1, "key": value, "products": [{"name": "it", "checks": value}, value]})
        warned: list[str] = []
        former = PreviousNight(_Text(text), warned.append)  # type: ignore[arg-type]
        assert former.get("it") is None or former["it"].published.checks == ()
        assert isinstance(former.key, str) and len(warned) <= 2


class _Text:
    """A file in memory."""

    def __init__(self, text: str) -> None:
        self._text = text

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        return io.BytesIO(self._text.encode())


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "\0", '{"format": ' + "9" * 5000 + "}", '{"products": [}'])
def test_a_record_of_a_night_that_no_json_reader_survives_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "nightly.json").write_text(text)
    warned: list[str] = []
    assert PreviousNight(tmp_path / "nightly.json", warned.append).get("it") is None
    assert len(warned) == 1 and "cannot be read" in warned[0]
