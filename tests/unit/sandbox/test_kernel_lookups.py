"""openat2 within a root: what is renamed elsewhere on the machine meanwhile is no error."""

from __future__ import annotations

import errno
import os

import pytest

from pipeline.sandbox import kernel


class _Refusing:
    """The system call, refused with EAGAIN a number of times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls = 0

    def __call__(self, *_: object) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), "/var/run/x")
        return 7


@pytest.mark.parametrize("times", [0, 1, kernel.OPENAT2_TRIES - 1])
def test_a_look_up_that_meets_a_rename_is_tried_again(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = _Refusing(times)
    monkeypatch.setattr(kernel, "_call", refusing)
    assert kernel.openat2(3, "/var/run/x", os.O_PATH, resolve=kernel.RESOLVE_IN_ROOT) == 7
    assert refusing.calls == times + 1


def test_a_look_up_that_always_meets_one_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = _Refusing(10 * kernel.OPENAT2_TRIES)
    monkeypatch.setattr(kernel, "_call", refusing)
    with pytest.raises(BlockingIOError, match="/var/run/x"):
        kernel.openat2(3, "/var/run/x", os.O_PATH, resolve=kernel.RESOLVE_IN_ROOT)
    assert refusing.calls == kernel.OPENAT2_TRIES
