"""Bytes that an instance has read from and written to disks.

They are read from the files of its control group.
"""

from __future__ import annotations

_LOOP_MAJOR = "7"
"""Of loop devices (the kernel's Documentation/admin-guide/devices.txt)."""


def parse_io_bytes(text: str | None) -> tuple[int | None, int | None]:
    """Bytes read and written, from `8:0 rbytes=1 wbytes=2 …` (v2) or lines `8:0 Read 1` (v1).

    A volume's loop device passes on to the disk what it was told, when it does: the larger sum counts.
    """
    if text is None:
        return None, None
    if not any(line[:1].isdigit() for line in text.splitlines()):
        return None, None
    sums = {(loop, kind): 0 for loop in (True, False) for kind in ("read", "write")}
    for line in text.splitlines():
        device, *words = line.split()
        loop = device.partition(":")[0] == _LOOP_MAJOR
        if len(words) == 2 and words[1].isdigit() and (loop, words[0].lower()) in sums:
            sums[loop, words[0].lower()] += int(words[1])
        for word in words:
            for kind, key in (("read", "rbytes="), ("write", "wbytes=")):
                if word.startswith(key) and word.removeprefix(key).isdigit():
                    sums[loop, kind] += int(word.removeprefix(key))
    return max(sums[True, "read"], sums[False, "read"]), max(sums[True, "write"], sums[False, "write"])
