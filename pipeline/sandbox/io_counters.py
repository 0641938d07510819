"""Parser of the bytes read and written in a control group's I/O statistics."""

from __future__ import annotations

_LOOP_MAJOR = "7"
"""Major number of loop devices (the kernel's Documentation/admin-guide/devices.txt)."""


def parse_io_bytes(text: str | None) -> tuple[int | None, int | None]:
    """Sum bytes read and written in `8:0 rbytes=1 wbytes=2 …` (v2) or lines `8:0 Read 1` (v1).

    I/O of a volume's loop device may be counted again for the disk below it: the larger of both sums counts.
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
