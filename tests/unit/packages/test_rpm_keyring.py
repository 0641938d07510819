"""rpm's keyrings, which threads do not share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.packages.rpm_keyring import make_keyring

ROOT = Path(__file__).parents[3]
KEY = ((ROOT / "recipes/keys/RPM-GPG-KEY-Rocky-9").read_bytes(),)


def test_each_thread_has_a_keyring_of_its_own_and_makes_it_once() -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        first, again = (one.submit(make_keyring, KEY).result() for _ in range(2))
        second = other.submit(make_keyring, KEY).result()
    assert first is again
    assert second is not first and make_keyring(KEY) not in (first, second)
