"""What a container prints: kept up to a bound, told at a bounded rate, and read at a bounded cost."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.sandbox import output
from pipeline.sandbox.named_output import NamedOutput
from pipeline.sandbox.output import Capture, HeldOutput, _Bucket, _cost
from tests.support.patience import HUNG

IDS = {"uid": os.getuid(), "gid": os.getgid()}


@pytest.fixture
def told() -> list[bytes]:
    return []


@pytest.fixture
def capture(told: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Capture]:
    monkeypatch.setattr(output, "FOLLOW_RATE", 100_000)
    with Capture(100, **IDS, follow=told.append) as made:
        yield made


def write_all(capture: Capture, data: bytes) -> None:
    while data:
        data = data[os.write(capture.write_end, data) :]


def test_a_flood_is_counted_to_the_byte_and_its_beginning_is_kept(capture: Capture, told: list[bytes]) -> None:
    flood = b"x" * (10 << 20)
    write_all(capture, b"first " + flood)
    capture.started()
    capture.finish()
    assert capture.kept == b"first " + b"x" * 94
    assert capture.log.startswith(capture.kept)
    assert capture.dropped == len(flood) + 6 - 100
    missed = sum(int(piece.split()[1]) for piece in told if piece.startswith(b"\n[relbuild: "))
    shown = sum(len(piece) for piece in told if not piece.startswith(b"\n[relbuild: "))
    assert missed + shown == len(flood) + 6
    assert shown < len(flood) // 4


def test_who_follows_is_told_again_after_a_flood_and_how_much_was_missed(capture: Capture, told: list[bytes]) -> None:
    flood, words = b"y" * (10 << 20), b"last words"
    write_all(capture, flood)
    deadline, written = time.monotonic() + HUNG, len(flood)
    while not told or not told[-1].endswith(words):
        assert time.monotonic() < deadline, told[-1:]
        write_all(capture, words)
        written += len(words)
        time.sleep(0.05)
    capture.started()
    capture.finish()
    notes = [piece for piece in told if piece.startswith(b"\n[relbuild: ")]
    shown = sum(len(piece) for piece in told if piece not in notes)
    assert notes and sum(int(note.split()[1]) for note in notes) + shown == written


def test_a_follower_that_raises_gets_no_more_and_holds_nothing_up() -> None:
    calls: list[bytes] = []

    def refuse(piece: bytes) -> None:
        calls.append(piece)
        raise BrokenPipeError

    with Capture(10, **IDS, follow=refuse) as capture:
        write_all(capture, b"z" * (1 << 20))
        capture.started()
    assert len(calls) == 1
    assert (capture.kept, capture.dropped) == (b"z" * 10, (1 << 20) - 10)
    assert capture.log == b"z" * 10 + f"\n[relbuild: output limit reached, {(1 << 20) - 10} bytes dropped]\n".encode()


@pytest.mark.parametrize(
    "data", [b"\0" * (4 << 20), b"x" * (4 << 20), b"\xff\x1b[2J" * (1 << 19)], ids=["binary", "endless", "escapes"]
)
def test_what_is_no_text_is_kept_as_it_is(data: bytes) -> None:
    with Capture(1 << 20, **IDS) as capture:
        write_all(capture, data)
        capture.started()
    assert capture.kept == data[: 1 << 20]
    assert capture.dropped == len(data) - (1 << 20)


def test_a_kernel_that_cannot_splice_is_no_reason_to_stop_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "splice")

    monkeypatch.setattr(os, "splice", refuse)
    with Capture(100, **IDS) as capture:
        write_all(capture, b"x" * (1 << 20))
        capture.started()
    assert capture.dropped == (1 << 20) - 100


def test_many_small_writes_are_read_together() -> None:
    """As many reads a second as there are tokens, however often is written."""
    reads = 0
    take = Capture._take

    def counted(self: Capture) -> int:
        nonlocal reads
        reads += 1
        return take(self)

    with pytest.MonkeyPatch.context() as patch, Capture(1 << 20, **IDS) as capture:
        patch.setattr(Capture, "_take", counted)

        def chatter() -> None:
            stop = time.monotonic() + 1.0
            while time.monotonic() < stop:
                os.write(capture.write_end, b"x")

        writer = threading.Thread(target=chatter)
        writer.start()
        writer.join()
        capture.started()
    assert len(capture.kept) > reads
    assert reads < 4 * output._READS


def test_lines_and_bytes_that_are_no_text_weigh_more() -> None:
    assert _cost(b"abc") == 3
    assert _cost(b"\n") == 1 + output._LINE_COST
    assert _cost(b"\0\0") == 2 + 2 * output._CONTROL_COST


def test_a_bucket_lets_one_large_take_through_and_then_none_until_it_is_paid() -> None:
    bucket = _Bucket(1e-9, 10)
    assert bucket.take(1000)
    assert not bucket.take(1)
    assert bucket.left() < 0


class TestNamedOutput:
    def test_it_is_read_to_the_end_by_who_waits(self, tmp_path: Path) -> None:
        path = tmp_path / "out"
        with NamedOutput(path, 10, os.getuid()) as out:
            assert path.is_fifo() and path.stat().st_mode & 0o777 == 0o600
            with path.open("wb") as file:
                file.write(b"x" * 1000)
            assert out.finish(HUNG)
        assert (out.kept, out.dropped) == (b"x" * 10, 990)
        assert not path.exists()

    def test_a_flood_is_counted_to_the_byte(self, tmp_path: Path) -> None:
        with NamedOutput(tmp_path / "out", 100, os.getuid()) as out:
            writer = threading.Thread(target=(tmp_path / "out").write_bytes, args=(b"x" * (10 << 20),))
            writer.start()
            while not out.kept:
                out.read_once()
            assert out.finish(HUNG)
            writer.join()
        assert out.dropped == (10 << 20) - 100

    def test_a_holder_of_the_other_end_does_not_keep_it(self, tmp_path: Path) -> None:
        with NamedOutput(tmp_path / "out", 100, os.getuid()) as out:
            holder = os.open(tmp_path / "out", os.O_WRONLY)
            assert not out.finish(0.05)
            os.close(holder)
            assert out.finish(HUNG)

    def test_what_another_reader_takes_away_is_not_waited_for(self, tmp_path: Path) -> None:
        for limit in (100, 0):
            with NamedOutput(tmp_path / "out", limit, os.getuid()) as out:
                assert out.read_once() == 0.0, "nothing is there, and it does not wait"
                assert (out.kept, out.dropped) == (b"", 0)


def test_held_output_is_handed_on_in_order_once_it_is_released(told: list[bytes]) -> None:
    held = HeldOutput(told.append)
    held(b"one")
    held(b"two")
    assert told == []
    held.release()
    held(b"three")
    assert told == [b"one", b"two", b"three"]


def test_a_follower_that_fails_at_the_release_is_found_by_the_next_piece() -> None:
    def closed(_: bytes) -> None:
        raise BrokenPipeError

    held = HeldOutput(closed)
    held(b"one")
    held.release()
    with pytest.raises(BrokenPipeError):
        held(b"two")
