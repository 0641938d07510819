"""Pools of threads that are opened in a test: how many threads each may have."""

from __future__ import annotations

import concurrent.futures
from concurrent.futures import ThreadPoolExecutor

import pytest


def recorded_pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads of all pools that functions which import the class themselves open from now on."""
    numbers = list[int]()

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers: int, thread_name_prefix: str = "") -> None:
            numbers.append(max_workers)
            super().__init__(max_workers, thread_name_prefix)

    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", Pool)
    return numbers
