"""Berkeley DB and ndb: what is written is found as rpm looks for it, and read back; anything else is refused."""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BuildError, VerificationError
from pipeline.model.rpm_database import DATABASE_FILES, DatabaseFormat
from pipeline.packages import bdb_writer, ndb_writer, read_installed, rpmdb_writer
from pipeline.packages.rpmdb_reader import read_headers
from pipeline.process import Completed
from tests.support.examples import examples
from tests.unit.packages.test_packages_installed import APP, KEY, database

Write = Callable[[Mapping[int, bytes]], bytes]
Entry = tuple[bytes, int, int]
WRITERS = pytest.mark.parametrize("write", [bdb_writer.write_bdb_packages, ndb_writer.write_ndb_packages])

PAGE = bdb_writer.BDB_PAGE_SIZE
TAG = 1117
HEADERS = {number: bytes([number % 251]) * (number * 97 % 9000 + 8) for number in range(1, 700)}
"""Of all sizes up to three pages, and more than one page of numbers."""


def entries(count: int) -> list[Entry]:
    """Names that share beginnings, of which some are on several places, some are long, and one is empty."""
    made = [(f"lib{number % 400:o}-{'x' * (number % 90)}".encode(), number, number % 5) for number in range(1, count)]
    long = [(b"/" + bytes([97 + number]) * 3000 + tail, number, 0) for number in range(1, 12) for tail in (b"", b"z")]
    return [*made, *long, (b"\0", 3, 1), (b"glibc", 1, 0), *((b"glibc", number, 2) for number in range(1, 300))]


def items(data: bytes, page: int) -> tuple[int, int, list[bytes]]:
    """The next page, the type and the items of a page of a Berkeley DB file."""
    *_, following, count, _, _, kind = bdb_writer.PAGE_HEADER.unpack_from(data, page * PAGE)
    offsets = struct.unpack_from(f"<{count}H", data, page * PAGE + bdb_writer.PAGE_HEADER.size)
    ends = [PAGE, *offsets]
    return following, kind, [data[page * PAGE + s : page * PAGE + e] for s, e in zip(offsets, ends, strict=False)]


def chain(data: bytes, page: int, length: int) -> bytes:
    found = b""
    while page:
        start = page * PAGE
        _, _, _, _, page, _, used, _, _ = bdb_writer.PAGE_HEADER.unpack_from(data, start)
        found += data[start + bdb_writer.PAGE_HEADER.size : start + bdb_writer.PAGE_HEADER.size + used]
    assert len(found) == length
    return found


def value(data: bytes, item: bytes) -> bytes:
    length, kind = struct.unpack_from("<HB", item)
    return item[3 : 3 + length] if kind == 1 else chain(data, *struct.unpack_from("<4xII", item))


def look_up(data: bytes, key: bytes) -> bytes | None:
    """What a B-tree has for a key, by way of its inner pages."""
    page = struct.unpack_from("<I", data, 88)[0]
    while True:
        _, kind, found = items(data, page)
        if kind == bdb_writer.TREE_LEAF:
            pairs = {value(data, name): item for name, item in zip(found[::2], found[1::2], strict=True)}
            return value(data, pairs[key]) if key in pairs else None
        assert kind == bdb_writer.TREE_INNER
        for item in found:
            length, form, below, _ = bdb_writer.TREE_INNER_ITEM.unpack_from(item)
            least = item[12 : 12 + length] if form == 1 else chain(data, *struct.unpack_from("<4xII", item, 12))
            page = below if least <= key or item is found[0] else page
            if least > key:
                break


@WRITERS
@pytest.mark.parametrize("headers", [{}, {1: b"a" * 8}, {2: b"b" * 1024, 7: b"c" * 1025}, HEADERS])
def test_headers_are_read_back(write: Write, headers: dict[int, bytes]) -> None:
    data = write(headers)
    assert sorted(read_headers(data)) == sorted(headers.values())
    assert data == write(dict(headers)) and len(data) % 16 == 0


@WRITERS
def test_packages_are_read_whatever_the_format(write: Write) -> None:
    assert [str(one.nevra) for one in read_installed(write({1: APP, 2: KEY}))] == [
        "app-7:1.0-2.x86_64",
        "gpg-pubkey-1-2.",
    ]


def test_rpm_goes_on_counting_headers_from_the_last_one() -> None:
    data = bdb_writer.write_bdb_packages({1: APP, 5: KEY})
    pairs = [one for page in (1, 2) for one in items(data, page)[2]]
    assert pairs[pairs.index(b"\1" + bytes(4)) + 1] == b"\1" + struct.pack("<I", 5)
    assert ndb_writer.PACKAGES_HEADER.unpack_from(ndb_writer.write_ndb_packages({1: APP, 5: KEY}))[4] == 6


def test_the_hash_functions_are_those_of_libdb_and_rpm() -> None:
    """The first is in each hash file of libdb, the second as rpm 4.20 stored a name in its index."""
    assert bdb_writer.hash_bdb_key(b"%$sniglet^&\0") == 0x5E688DD1
    for name, high, low in ((b"httpd", 0x3A45, 149), (b"apr", 0x8DEA, 185), (b"apr-util-openssl", 0x0997, 925)):
        value = ndb_writer.hash_ndb_key(name)
        assert (value >> 16, value & 1023) == (high, low)


def test_each_key_of_a_tree_is_found_from_its_root_and_no_other() -> None:
    listed = entries(3000)
    data = bdb_writer.write_bdb_index("Providename", listed)
    wanted: dict[bytes, bytes] = {}
    for key, number, position in listed:
        wanted[key] = wanted.get(key, b"") + struct.pack("<II", number, position)
    assert {key: look_up(data, key) for key in wanted} == wanted
    assert [look_up(data, key) for key in (b"", b"lib", b"zzz", b"glibc-")] == [None] * 4
    leaf, keys = 1, list[bytes]()
    while items(data, leaf)[1] != bdb_writer.TREE_LEAF:
        leaf = bdb_writer.TREE_INNER_ITEM.unpack_from(items(data, leaf)[2][0])[2]
    while leaf:
        leaf, _, found = items(data, leaf)
        keys += [value(data, one) for one in found[::2]]
    assert keys == sorted(wanted)


def test_files_of_one_database_have_different_ids() -> None:
    """libdb takes files with the same one for one file, also where their content is the same."""
    ids = {bdb_writer.write_bdb_index(name, [])[52:72] for name in ("Conflictname", "Obsoletename")}
    assert len(ids) == 2 and all(any(one) for one in ids)


def found_in_index(blob: bytes, key: bytes) -> list[tuple[int, int]]:
    """The places that an index of ndb has for a key, as `rpmidxGetInternal` looks for them."""
    _, _, _, slots, _, _, mask, end, _ = ndb_writer.INDEX_HEADER.unpack_from(blob)
    keys, wanted, step = 64 + 12 * slots, ndb_writer.hash_ndb_key(key), 7
    place, offset, found = wanted & (slots - 1), 0, []
    while (slot := struct.unpack_from("<II", blob, 64 + 8 * place)) != (0, 0):
        start = keys + (slot[0] & ~mask)
        stored = blob[start + 1 : start + 1 + blob[start]]
        if blob[start] == 255:
            size = struct.unpack_from("<H", blob, start + 1)[0]
            stored = blob[start + 3 : start + 3 + size]
        if not offset and (slot[0] ^ wanted) & mask == 0 and stored == key:
            assert start - keys < end
            offset = slot[0]
        if slot[0] == offset:
            data = slot[1]
            overflow = struct.unpack_from("<I", blob, 64 + 8 * slots + 4 * place)[0]
            if data & 0x80000000:
                found.append((overflow, data ^ 0x80000000))
            elif data & 0x40000000:
                found.append((data & 0xFFFFFF, (data ^ 0x40000000) >> 24))
            else:
                found.append((data & 0xFFFFF, data >> 20))
        place, step = (place + step) & (slots - 1), step + 1
    return found


def test_each_key_of_an_ndb_index_is_found_and_no_other() -> None:
    listed = [*entries(3000), (b"far", 0x123456, 3), (b"farther", 0x1234567, 3), (b"wide", 7, 0x401)]
    data = ndb_writer.write_ndb_indexes({TAG: [*listed, listed[0]], 1000: []}, 9)
    assert ndb_writer.INDEXES_HEADER.unpack_from(data)[5] == 9
    slots = {tag: (start, pages) for _, tag, start, pages in ndb_writer.NDB_SLOT.iter_unpack(data[32:64])}
    start, pages = slots[TAG]
    blob = data[start * 4096 : (start + pages) * 4096]
    assert slots[1000][1] and (start + pages) * 4096 == len(data)
    wanted: dict[bytes, list[tuple[int, int]]] = {}
    for key, number, position in listed:
        wanted.setdefault(key, []).append((number, position))
    assert {key: sorted(found_in_index(blob, key)) for key in wanted} == {k: sorted(v) for k, v in wanted.items()}
    assert not any(found_in_index(blob, key) for key in (b"lib", b"zzz", b"glibc-"))


def placed_one_by_one(entries: list[Entry]) -> bytes:
    """The slots of an index as `rpmidxPutInternal` fills them, looking for each place from the beginning."""
    count, keys, offsets = ndb_writer._slot_count(len(entries)), 1, dict[bytes, int]()
    slots, overflow = [(0, 0)] * count, [0] * count
    for key, _, _ in entries:
        if key not in offsets:
            offsets[key] = keys
            keys += len(ndb_writer._key_length(len(key))) + len(key)
    size = 64 + 12 * count + keys + 4096
    mask = ndb_writer._hash_mask(size + -size % 4096 - 64 - 12 * count)
    for key, number, position in entries:
        value = ndb_writer.hash_ndb_key(key)
        place, step = value & (count - 1), 7
        while slots[place][0]:
            place, step = (place + step) & (count - 1), step + 1
        data, overflow[place] = ndb_writer._encode(number, position)
        slots[place] = (offsets[key] | value & mask, data)
    return b"".join(struct.pack("<II", *slot) for slot in slots) + struct.pack(f"<{count}I", *overflow)


@settings(max_examples=examples(20), deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(0, 900))
def test_an_ndb_index_has_each_entry_where_rpm_puts_it(random: Random, names: int, count: int) -> None:
    """Also where many entries have one key, and where keys share places: up to 900 of them in 1,024 slots and more."""
    listed = list(
        dict.fromkeys((b"name%d" % random.randrange(names), random.randrange(1, 1 << 25), 0) for _ in range(count))
    )
    blob = ndb_writer._index(listed)
    assert blob[64:].startswith(placed_one_by_one(listed))


def test_the_entries_of_one_name_are_placed_in_linear_time() -> None:
    """A file name like `__init__.py` is in thousands of packages."""

    def lines(count: int) -> int:
        executed = 0

        def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
            nonlocal executed
            executed += event == "line"
            return trace if frame.f_code is ndb_writer._index.__code__ else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            ndb_writer._index([(b"__init__.py", number, 0) for number in range(count)])
        finally:
            sys.settrace(before)
        return executed

    assert lines(1000) < 3 * lines(500)


def swapped(data: bytes) -> bytes:
    """The same database as a big-endian machine has it."""
    made = bytearray(data)

    def swap(offset: int, size: int) -> None:
        made[offset : offset + size] = made[offset : offset + size][::-1]

    for offset in [*range(8, 24, 4), *range(28, 52, 4), *range(72, 224, 4)]:
        swap(offset, 4)
    for start in range(PAGE, len(data), PAGE):
        kind, count = data[start + 25], struct.unpack_from("<H", data, start + 20)[0]
        for index in range(count if kind == bdb_writer.HASH_PAGE else 0):
            at = start + 26 + 2 * index
            item = start + struct.unpack_from("<H", data, at)[0]
            swap(at, 2)
            if data[item] == 3:
                swap(item + 4, 4)
                swap(item + 8, 4)
        for offset in (8, 12, 16):
            swap(start + offset, 4)
        for offset in (20, 22):
            swap(start + offset, 2)
    return bytes(made)


def test_a_database_of_a_big_endian_machine_is_read() -> None:
    assert sorted(read_headers(swapped(bdb_writer.write_bdb_packages(HEADERS)))) == sorted(HEADERS.values())


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


BDB = bdb_writer.write_bdb_packages({1: APP, 2: b"x" * 5000})
NDB = ndb_writer.write_ndb_packages({1: APP, 2: b"x" * 5000})


@pytest.mark.parametrize(
    "data",
    [
        BDB[:300],
        BDB[: PAGE + 5],
        changed(BDB, 16, struct.pack("<I", 7)),
        changed(BDB, 20, struct.pack("<I", 3)),
        changed(BDB, 24, b"\1"),  # encrypted
        changed(BDB, 26, b"\1"),  # with checksums
        changed(BDB, 72, struct.pack("<I", 1 << 30)),
        changed(BDB, 96, struct.pack("<I", 0)),  # the first bucket is on page 0
        changed(BDB, 100, struct.pack("<I", 0xFFFFFFFF)),
        changed(BDB, PAGE + 8, struct.pack("<I", 9)),
        changed(BDB, PAGE + 25, b"\7"),
        changed(BDB, 2 * PAGE + 16, struct.pack("<I", 1)),  # the second bucket goes on in the first
        changed(BDB, 2 * PAGE + 16, struct.pack("<I", 2)),  # a page goes on in itself
        changed(BDB, 3 * PAGE + 16, struct.pack("<I", 3)),
        changed(BDB, 3 * PAGE + 22, struct.pack("<H", 0)),
        NDB[:20],
        NDB[:4096],
        changed(NDB, 4, b"\1"),
        changed(NDB, 12, struct.pack("<I", 1 << 20)),
        changed(NDB, 32, b"slot"),
        changed(NDB, 36, struct.pack("<I", 4)),
        changed(NDB, 48, NDB[32:48]),  # two slots of one header
        changed(NDB, 4096 + 40, b"!"),
        NDB[:-16],
    ],
)
def test_a_damaged_database_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="RPM database"):
        read_headers(data)


def test_a_page_is_read_once() -> None:
    """A file of 25 MB in which each of 4,000 items names the same chain, of pages with one byte, is refused at once."""
    data = bytearray(bdb_writer.write_bdb_packages(dict.fromkeys(range(1, 4000), b"y" * 1500)))
    chained = [start for start in range(PAGE, len(data), PAGE) if data[start + 25] == bdb_writer.OVERFLOW_PAGE]
    for start in chained:
        struct.pack_into("<I", data, start + 16, chained[0] // PAGE)
        struct.pack_into("<H", data, start + 22, 1)
    with pytest.raises(VerificationError, match="is in two chains"):
        read_headers(bytes(data))


def test_an_item_ends_where_the_one_before_it_begins() -> None:
    """A page's offsets are its own, also of the counter: 32,000 pairs do not stand in a page of 4,096 bytes."""
    data = bytearray(bdb_writer.write_bdb_packages({1: APP}) + bytes(PAGE * 40))
    start = next(start for start in (PAGE, 2 * PAGE) if items(bytes(data), start // PAGE)[2][0] == b"\1" + bytes(4))
    struct.pack_into("<H", data, start + 20, 64_000)
    struct.pack_into("<64000H", data, start + 26, *(PAGE - 5, PAGE) * 32_000)
    data[start + PAGE - 5 : start + PAGE] = b"\1" + bytes(4)
    with pytest.raises(VerificationError, match="outside of its page"):
        read_headers(bytes(data))


@settings(max_examples=examples(80), deadline=None)
@given(st.sampled_from([BDB, NDB]), st.integers(0, len(BDB) - 1), st.binary(min_size=1, max_size=8))
def test_whatever_a_database_says_it_is_read_or_refused(data: bytes, offset: int, junk: bytes) -> None:
    with contextlib.suppress(VerificationError):
        read_headers(changed(data, offset % len(data), junk))


EXPORTED = b"".join(b"\x8e\xad\xe8\x01\0\0\0\0" + blob for blob in (APP, KEY))
"""What `rpmdb --exportdb` writes of two packages."""


@pytest.mark.parametrize(
    ("headers", "done", "refused"),
    [
        ([APP, KEY], Completed(("rpmdb",), 0, EXPORTED, b""), None),
        ([KEY, APP], Completed(("rpmdb",), 0, EXPORTED, b""), None),
        ([APP, KEY], Completed(("rpmdb",), 0, b"", b"warning: using dummy database\n"), None),
        ([APP, KEY], Completed(("rpmdb",), 0, EXPORTED[: len(EXPORTED) - len(KEY) - 8], b""), "of 2 headers 1"),
        ([APP, APP], Completed(("rpmdb",), 0, EXPORTED, b""), "of 2 headers 2 were read back, or others"),
        ([APP], Completed(("rpmdb",), 0, EXPORTED, b""), "of 2 headers 1"),
        ([APP, KEY], Completed(("rpmdb",), 1, b"", b"error: bdb_ro error reading\n"), "rpm cannot read the database"),
    ],
)
def test_a_database_that_is_not_read_back_as_it_was_is_refused(
    headers: list[bytes], done: Completed, refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By relbuild's reader or by rpm's, where rpm has one."""
    monkeypatch.setattr(rpmdb_writer, "run", lambda *_, **__: done)
    sqlite = tmp_path / DATABASE_FILES[DatabaseFormat.SQLITE]
    sqlite.write_bytes(database(APP, KEY))
    files = {"Packages": bdb_writer.write_bdb_packages(dict(enumerate(headers, start=1)))}
    with contextlib.nullcontext() if refused is None else pytest.raises(BuildError, match=refused):
        rpmdb_writer._replace(tmp_path, sqlite, DatabaseFormat.BDB, files)
    assert [path.name for path in tmp_path.iterdir()] == ["Packages"]
