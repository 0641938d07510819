"""Sizes, durations, bandwidths, processors and modes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.quantities import (
    DURATION_UNITS,
    LARGEST_RATE,
    LARGEST_SIZE,
    LONGEST_DURATION,
    SIZE_UNITS,
    SMALLEST_THROUGHPUT,
    Malformed,
    parse_age,
    parse_bandwidth,
    parse_cpus,
    parse_duration,
    parse_memory,
    parse_mode,
    parse_size,
    parse_throughput,
    parse_volume,
    write_duration,
    write_size,
    write_throughput,
)


@pytest.mark.parametrize(
    ("parse", "written", "number"),
    [
        (parse_size, 4096, 4096),
        (parse_size, "4096", 4096),
        (parse_size, "4096B", 4096),
        (parse_size, "128M", 128 << 20),
        (parse_size, "1GiB", 1 << 30),
        (parse_size, "1.5 GiB", 3 << 29),
        (parse_duration, "60s", 60_000),
        (parse_duration, "500ms", 500),
        (parse_duration, "2m", 120_000),
        (parse_duration, "1.5h", 5_400_000),
        (parse_memory, "1MiB", 1 << 20),
        (parse_memory, 1 << 20, 1 << 20),
        (parse_volume, "512K", 512 << 10),
        (parse_bandwidth, "100mbit", 100_000_000),
        (parse_bandwidth, "1gbit", 1_000_000_000),
        (parse_bandwidth, "64kbit", 64_000),
        (parse_throughput, "20MiB/s", 20 << 20),
        (parse_throughput, "20MiB", 20 << 20),
        (parse_throughput, "512K/s", 512 << 10),
        (parse_throughput, "1.5 GiB/s", 3 << 29),
        (parse_cpus, 0.5, 500),
        (parse_cpus, 0.1, 100),
        (parse_cpus, 2, 2000),
        (parse_cpus, "1.25", 1250),
        (parse_mode, "0644", 0o644),
        (parse_mode, "755", 0o755),
        (parse_mode, "4755", 0o4755),
    ],
)
def test_what_people_write_becomes_a_number(parse: Callable[[object], int], written: object, number: int) -> None:
    assert parse(written) == number


@pytest.mark.parametrize(
    ("parse", "written", "code", "hint"),
    [
        (parse_size, "1GB", "size-malformed", "'GiB'"),
        (parse_size, "1Q", "size-malformed", "512MiB"),
        (parse_size, "", "size-malformed", "512MiB"),
        (parse_size, "-1", "size-malformed", "512MiB"),
        (parse_size, 0, "size-malformed", "512MiB"),
        (parse_size, -5, "size-malformed", "512MiB"),
        (parse_size, "0.3B", "size-malformed", "512MiB"),
        (parse_size, "9999999TiB", "size-malformed", "512MiB"),
        (parse_size, True, "size-malformed", "512MiB"),
        (parse_size, None, "size-malformed", "512MiB"),
        (parse_memory, 128, "size-malformed", "a number alone is bytes: write 128MiB"),
        (parse_memory, " 128 ", "size-malformed", "bytes: write 128MiB"),
        (parse_memory, "1023KiB", "size-malformed", "64MiB"),
        (parse_memory, "1GB", "size-malformed", "'GiB'"),
        (parse_volume, 1, "size-malformed", "a number alone is bytes: write 1GiB"),
        (parse_volume, "511KiB", "size-malformed", "64MiB"),
        (parse_duration, 60, "duration-malformed", "60s"),
        (parse_duration, "60", "duration-malformed", "60s"),
        (parse_duration, "60 seconds", "duration-malformed", "60s"),
        (parse_duration, "25h", "duration-malformed", "60s"),
        (parse_duration, "0.5ms", "duration-malformed", "60s"),
        (parse_bandwidth, 100, "bandwidth-malformed", "100mbit"),
        (parse_bandwidth, "100Mbit", "bandwidth-malformed", "100mbit"),
        (parse_bandwidth, "100MB", "bandwidth-malformed", "100mbit"),
        (parse_throughput, 20_000_000, "throughput-malformed", "20MiB/s"),
        (parse_throughput, "20000000", "throughput-malformed", "20MiB/s"),
        (parse_throughput, "20MB/s", "throughput-malformed", "20MiB/s"),
        (parse_throughput, "100mbit", "throughput-malformed", "in bytes"),
        (parse_throughput, "1KiB/s", "throughput-malformed", "20MiB/s"),
        (parse_throughput, "/s", "throughput-malformed", "20MiB/s"),
        (parse_cpus, "500m", "cpus-malformed", "0.5"),
        (parse_cpus, 0.0001, "cpus-malformed", "three decimals"),
        (parse_cpus, 0.005, "cpus-malformed", "0.5"),
        (parse_cpus, float("nan"), "cpus-malformed", "0.5"),
        (parse_mode, 644, "mode-malformed", 'such as "0644"'),
        (parse_mode, 0o640, "mode-malformed", 'such as "0644"'),
        (parse_mode, "0999", "mode-malformed", '"0644"'),
        (parse_mode, "u+x", "mode-malformed", '"0644"'),
        (parse_mode, "07777777", "mode-malformed", '"0644"'),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_write(
    parse: Callable[[object], int], written: object, code: str, hint: str
) -> None:
    with pytest.raises(Malformed) as caught:
        parse(written)
    assert caught.value.code == code
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("parse", "none", "most"),
    [
        (parse_size, "0", "1024TiB"),
        (parse_duration, "0s", "86400s"),
        (parse_age, "0s", "36600d"),
        (parse_bandwidth, "0mbit", "1000gbit"),
        (parse_throughput, "0M/s", "976562500KiB/s"),
    ],
)
def test_the_most_is_told_with_its_unit(parse: Callable[[object], int], none: str, most: str) -> None:
    with pytest.raises(Malformed, match=f"must be more than 0 and at most {most}$"):
        parse(none)
    assert parse(most) > 0
    with pytest.raises(Malformed, match=f"at most {most}$"):
        parse(f"9{most}")


@given(st.integers(1, 1 << 20), st.sampled_from(sorted(SIZE_UNITS)))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    size = number << SIZE_UNITS[unit]
    if size <= LARGEST_SIZE:
        assert parse_size(f"{number}{unit}") == size
    else:
        with pytest.raises(Malformed):
            parse_size(f"{number}{unit}")


@given(st.integers(1, LARGEST_SIZE))
def test_a_size_is_read_back_as_it_was_written(size: int) -> None:
    assert parse_size(write_size(size)) == size


@given(st.integers(SMALLEST_THROUGHPUT, LARGEST_RATE))
def test_a_throughput_is_read_back_as_it_was_written(rate: int) -> None:
    assert parse_throughput(write_throughput(rate)) == rate


@given(st.integers(1, LONGEST_DURATION))
def test_a_duration_is_read_back_as_it_was_written(milliseconds: int) -> None:
    assert parse_duration(write_duration(milliseconds)) == milliseconds


@given(st.integers(1, 24), st.sampled_from(sorted(DURATION_UNITS)))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * DURATION_UNITS[unit]


@given(st.integers(10, 100_000))
def test_thousandths_of_a_processor_are_exact(milli: int) -> None:
    assert parse_cpus(milli / 1000) == milli
    assert parse_cpus(f"{milli / 1000}") == milli


@given(st.text(max_size=30))
def test_any_text_is_a_positive_number_or_refused(text: str) -> None:
    for parse in (parse_size, parse_duration, parse_bandwidth, parse_throughput, parse_cpus):
        try:
            assert parse(text) > 0
        except Malformed as error:
            assert error.hint
