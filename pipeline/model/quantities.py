"""Parsers and writers of sizes, durations, rates, processor counts and file modes.

Every parser takes a value from YAML and returns an integer, or raises `Malformed` with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from pipeline.lazy_dataclasses import dataclass

SIZE_UNITS = {"": 0, "B": 0, "K": 10, "KiB": 10, "M": 20, "MiB": 20, "G": 30, "GiB": 30, "T": 40, "TiB": 40}
"""Unit → power of two. One letter means the binary unit, as in the configuration files of the products."""
DURATION_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
"""Unit → milliseconds."""
AGE_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
"""Unit → seconds."""
RATE_UNITS = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}
"""Unit → bits per second, decimal as in tc(8)."""

LARGEST_SIZE = 1 << 50
LONGEST_DURATION = 24 * 3_600_000
LONGEST_AGE = 100 * 366 * 86_400
LARGEST_RATE = 1_000_000_000_000
MOST_CPUS = 4096
SMALLEST_THROUGHPUT = 64 << 10
"""Bytes per second: the kernel shares a limit out in tenths of a second, and a file system's block is 4 KiB."""
SMALLEST_MEMORY = 1 << 20
"""Bytes: an OCI runtime takes several MiB before it becomes the container's first process."""
SMALLEST_VOLUME = 512 << 10
"""Bytes: half of them are the file system's table of 1,024 files."""
SMALLEST_SHARE = 10
"""Thousandths of a processor: the kernel's shortest quota is 1 ms in a period of 100 ms."""

SHORTEST_VALIDITY = 3600
"""Seconds: clocks of two machines differ, and what is renewed each night lives longer than a night."""
LONGEST_VALIDITY = 90 * 86_400
"""Seconds: anyone who can write to a mirror can write its rules, which must not make signed data valid for ever."""

MODE_IN_QUOTES = 'write octal digits in quotes, such as "0644"'
"""The hint for a mode that is a number."""

_NUMBER = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)")


class Malformed(ValueError):
    """A value that cannot be read: `code`, what is wrong, and what to write."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Quantity:
    """A kind of quantity: its name in the reference, its parser and its writer.

    `numeric`: YAML's numbers are of it.
    """

    name: str
    parse: Callable[[object], int]
    write: Callable[[int], str] = str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """A count, written as a number."""

    least: int
    most: int


Form = Quantity | WholeNumber


def parse_size(value: object) -> int:
    """`1GiB`, `128M`, `1.5 GiB` or a number of bytes → bytes. Raises Malformed `size-malformed`."""
    hint = "write a number of bytes, or a number with K, M, G, T (or KiB, MiB, GiB, TiB), such as 512MiB"
    number, unit = _split(value, "size", hint, bare=True)
    if unit not in SIZE_UNITS:
        if unit.upper() in {"KB", "MB", "GB", "TB"}:
            hint = f"write {value!s:.40} with '{unit[0].upper()}iB', which relbuild counts in powers of 1024"
        raise Malformed("size-malformed", f"'{unit}' is not a unit of size", hint)
    return _whole(number * (1 << SIZE_UNITS[unit]), "size", LARGEST_SIZE, hint, write_size)


def parse_memory(value: object) -> int:
    """Parse a size of at least `SMALLEST_MEMORY`, in bytes. Raises Malformed `size-malformed`."""
    return _size_from(value, SMALLEST_MEMORY, "no container starts with less than", "MiB")


def parse_volume(value: object) -> int:
    """Parse a size of at least `SMALLEST_VOLUME`, in bytes. Raises Malformed `size-malformed`."""
    return _size_from(value, SMALLEST_VOLUME, "no file system is made in less than", "GiB")


def _size_from(value: object, least: int, too_small: str, unit: str) -> int:
    size = parse_size(value)
    if size < least:
        bare = str(value).strip().isdecimal()
        hint = f"a number alone is bytes: write {str(value).strip()}{unit}" if bare else "write 64MiB, for example"
        raise Malformed("size-malformed", f"{too_small} {write_size(least)}", hint)
    return size


def parse_duration(value: object) -> int:
    """`60s`, `500ms`, `2m`, `1h` → milliseconds. Raises Malformed `duration-malformed`."""
    hint = "write a number with ms, s, m or h, such as 60s"
    if isinstance(value, int | float) and not isinstance(value, bool):
        hint = f"add the unit: {value}s"
    number, unit = _split(value, "duration", hint)
    if unit not in DURATION_UNITS:
        raise Malformed("duration-malformed", f"'{unit}' is not a unit of time", hint)
    return _whole(number * DURATION_UNITS[unit], "duration", LONGEST_DURATION, hint, write_duration)


def parse_age(value: object) -> int:
    """`7d`, `12h`, `2w` → seconds. Raises Malformed `age-malformed`."""
    hint = "write a number with s, m, h, d or w, such as 7d"
    number, unit = _split(value, "age", hint)
    if unit not in AGE_UNITS:
        raise Malformed("age-malformed", f"'{unit}' is not a unit of age", hint)
    return _whole(number * AGE_UNITS[unit], "age", LONGEST_AGE, hint, write_age)


def parse_validity(value: object) -> int:
    """Parse an age from `SHORTEST_VALIDITY` to `LONGEST_VALIDITY`, in seconds.

    Raises Malformed `age-malformed`.
    """
    seconds = parse_age(value)
    if not SHORTEST_VALIDITY <= seconds <= LONGEST_VALIDITY:
        what = f"{value!s:.40} is not from {write_age(SHORTEST_VALIDITY)} to {write_age(LONGEST_VALIDITY)}"
        raise Malformed("age-malformed", what, "write how long runs may fail in a row, such as 14d")
    return seconds


def write_age(seconds: int) -> str:
    """Write seconds in the largest unit up to days that they are a whole number of.

    `parse_age` reads it back.
    """
    unit = next((unit for unit in ("d", "h", "m") if seconds and seconds % AGE_UNITS[unit] == 0), "s")
    return f"{seconds // AGE_UNITS[unit]}{unit}"


def parse_bandwidth(value: object) -> int:
    """`100mbit`, `1gbit` → bits per second. Raises Malformed `bandwidth-malformed`."""
    hint = "write a number with bit, kbit, mbit or gbit (per second), such as 100mbit"
    number, unit = _split(value, "bandwidth", hint)
    if unit not in RATE_UNITS:
        raise Malformed("bandwidth-malformed", f"'{unit}' is not a unit of bandwidth", hint)
    return _whole(number * RATE_UNITS[unit], "bandwidth", LARGEST_RATE, hint, _write_bandwidth)


def parse_throughput(value: object) -> int:
    """Parse `20MiB/s`, `512K/s`, also without the `/s`, as bytes per second.

    Raises Malformed `throughput-malformed`.
    """
    hint = "write a number with K, M or G (or KiB, MiB, GiB) and /s, such as 20MiB/s"
    number, unit = _split(value.removesuffix("/s") if isinstance(value, str) else value, "throughput", hint)
    if not unit or unit not in SIZE_UNITS:
        if "bit" in unit:
            hint = "disk throughput is in bytes: write 20MiB/s, for example"
        raise Malformed("throughput-malformed", f"'{unit}' is not a unit of throughput", hint)
    rate = _whole(number * (1 << SIZE_UNITS[unit]), "throughput", LARGEST_RATE, hint, write_throughput)
    if rate < SMALLEST_THROUGHPUT:
        least = write_throughput(SMALLEST_THROUGHPUT)
        raise Malformed("throughput-malformed", f"a throughput below {least} cannot be enforced", hint)
    return rate


def parse_cpus(value: object) -> int:
    """`0.5`, `2` → thousandths of a processor. Raises Malformed `cpus-malformed`."""
    hint = "write a number of processors, such as 0.5 or 2"
    number, unit = _split(value, "cpus", hint, bare=True)
    if unit:
        raise Malformed("cpus-malformed", f"a number of processors has no unit '{unit}'", hint)
    milli = number * 1000
    if milli.denominator != 1:
        raise Malformed("cpus-malformed", "processors have a resolution of 0.001", "write at most three decimals")
    if not SMALLEST_SHARE <= milli <= MOST_CPUS * 1000:
        raise Malformed("cpus-malformed", f"the number of processors must be from 0.01 to {MOST_CPUS}", hint)
    return int(milli)


def parse_mode(value: object) -> int:
    """`"0644"`, quoted octal → permission bits. Raises Malformed `mode-malformed`."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise Malformed(
            "mode-malformed",
            "a mode must be text, because YAML reads an unquoted one as a decimal number",
            MODE_IN_QUOTES,
        )
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{3,4}", value):
        raise Malformed("mode-malformed", f"'{value!s:.40}' is not a mode", 'write three or four octal digits: "0644"')
    return int(value, 8)


def write_size(size: int) -> str:
    """Return bytes as a whole number of the largest unit possible; `parse_size` reads it back."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % (1 << SIZE_UNITS[unit]) == 0:
            return f"{size >> SIZE_UNITS[unit]}{unit}"
    return str(size)


def write_throughput(rate: int) -> str:
    """Return bytes per second as text; `parse_throughput` reads it back."""
    return f"{write_size(rate)}{'B' if rate % 1024 else ''}/s"


def write_duration(milliseconds: int) -> str:
    """Return milliseconds as text, in seconds if whole; `parse_duration` reads it back."""
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def _split(value: object, what: str, hint: str, *, bare: bool = False) -> tuple[Fraction, str]:
    code = f"{what}-malformed"
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if numeric and not bare:
        raise Malformed(code, f"the {what} {value!s:.40} has no unit", hint)
    if not numeric and not isinstance(value, str):
        raise Malformed(code, f"a {what} is expected here", hint)
    found = _NUMBER.fullmatch(str(value).strip())
    if not found:
        raise Malformed(code, f"'{value!s:.40}' is not a {what}", hint)
    return Fraction(found[1]), found[2]


def _write_bandwidth(rate: int) -> str:
    unit = next(unit for unit in ("gbit", "mbit", "kbit", "bit") if rate % RATE_UNITS[unit] == 0)
    return f"{rate // RATE_UNITS[unit]}{unit}"


def _whole(number: Fraction, what: str, limit: int, hint: str, write: Callable[[int], str]) -> int:
    code = f"{what}-malformed"
    if number.denominator != 1:
        raise Malformed(code, f"the {what} is not a whole number of base units", hint)
    if not 0 < number <= limit:
        raise Malformed(code, f"the {what} must be more than 0 and at most {write(limit)}", hint)
    return int(number)


SIZE = Quantity("size", parse_size, write_size, numeric=True)
MEMORY = Quantity(SIZE.name, parse_memory, write_size, numeric=True)
VOLUME = Quantity(SIZE.name, parse_volume, write_size, numeric=True)
BANDWIDTH = Quantity("bandwidth", parse_bandwidth)
THROUGHPUT = Quantity("bytes per second", parse_throughput, write_throughput)
CPUS = Quantity("number of processors", parse_cpus, numeric=True)
