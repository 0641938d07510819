"""The archive in a payload, held to the sizes and names of the package's header."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.packages.cpio import ArchivedFile, CpioReader, MalformedCpio
from pipeline.streams import PieceReader


def aligned(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def member(name: bytes, content: bytes = b"", *, size: int | None = None, magic: bytes = b"070701") -> bytes:
    """A member as SVR4's cpio writes it; `size` is what it claims."""
    fields = [1, 0o100644, 0, 0, 1, 0, len(content) if size is None else size, 0, 0, 0, 0, len(name) + 1, 0]
    return aligned(aligned(magic + b"".join(b"%08x" % one for one in fields) + name + b"\0") + content)


def stripped(index: int, content: bytes = b"") -> bytes:
    return aligned(aligned(b"07070X%08x" % index) + content)


TRAILER = member(b"TRAILER!!!")


def files(*sizes: int) -> list[ArchivedFile]:
    return [ArchivedFile(frozenset({size}), size) for size in sizes]


def pieces_of(archive: bytes, size: int = 7) -> Iterator[bytes]:
    """An archive as a stream gives it: members and headers go over the ends of pieces."""
    return (archive[at : at + size] for at in range(0, len(archive), size))


def read(archive: bytes, known: list[ArchivedFile], names: tuple[bytes, ...] = (b"usr/a", b"b")) -> list[object]:
    reader = CpioReader(PieceReader(pieces_of(archive)), known, {name: place for place, name in enumerate(names)})
    return [(index, b"".join(iter(lambda: reader.read(3), b""))) for index, _ in reader.members()]


@pytest.mark.parametrize("prefix", [b"./", b"/", b""])
def test_members_are_found_by_their_names_in_the_header(prefix: bytes) -> None:
    archive = member(prefix + b"usr/a", b"12345") + member(prefix + b"b", b"6", magic=b"070702") + TRAILER
    assert read(archive + b"rubbish that nobody reads", files(5, 1)) == [(0, b"12345"), (1, b"6")]


def test_stripped_members_have_the_place_and_the_headers_size() -> None:
    assert read(stripped(1, b"6") + stripped(0, b"12345") + TRAILER, files(5, 1)) == [(1, b"6"), (0, b"12345")]


@pytest.mark.parametrize("digits", [b"-0000001", b"+0000001", b" 0000001", b"0000001 ", b"0x000001", b"0000_001"])
def test_numbers_are_of_hexadecimal_digits_alone(digits: bytes) -> None:
    """`int` takes signs, blanks, prefixes and underscores too."""
    good = stripped(1, b"6") + TRAILER
    assert read(good, files(5, 1)) == [(1, b"6")]
    with pytest.raises(MalformedCpio, match="is no number"):
        read(good.replace(b"00000001", digits, 1), files(5, 1))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_content_that_is_not_read_is_passed_over(contents: list[bytes], short: bool, skip: bool) -> None:
    names = tuple(b"f%d" % index for index in range(len(contents)))
    parts = [stripped(i, c) if short else member(names[i], c) for i, c in enumerate(contents)]
    reader = CpioReader(
        PieceReader(pieces_of(b"".join(parts) + TRAILER, 11)),
        files(*map(len, contents)),
        {name: place for place, name in enumerate(names)},
    )
    found = []
    for index, size in reader.members():
        assert size == len(contents[index])
        found.append(b"" if skip and index % 2 else b"".join(iter(lambda: reader.read(7), b"")))
    assert found == [b"" if skip and index % 2 else content for index, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (member(b"./usr/a", b"x" * 6) + TRAILER, "6 bytes, which are not those of the header"),
        (member(b"./usr/a", size=1 << 31), "2147483648 bytes, which are not"),
        (member(b"./usr/a", size=0) + TRAILER, "0 bytes, which are not"),
        (member(b"./etc/shadow", b"12345") + TRAILER, "no file b'./etc/shadow'"),
        (stripped(2) + TRAILER, "file 2 of 2"),
        (stripped(0xFFFFFFFF) + TRAILER, "file 4294967295 of 2"),
        (member(b"./usr/a", b"12345")[:-4], "middle of a file"),
        (member(b"./usr/a", b"12345"), "middle of a header"),
        (b"", "middle of a header"),
        (b"070707" + b"0" * 200, "begins with b'070707'"),
        (b"070701" + b"0000000g" * 13, "no number"),
        (b"070701" + b"00000000" * 13, "a name has 0 bytes"),
        (b"070701" + b"0fffffff" * 13, "bytes"),
        (b"07070X0000000z", "no number"),
    ],
)
def test_what_is_not_the_archive_of_these_files_is_malformed(archive: bytes, says: str) -> None:
    with pytest.raises(MalformedCpio) as caught:
        read(archive, files(5, 1))
    assert says in str(caught.value)


def test_no_more_is_read_than_the_header_accounts_for() -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 100
            yield bytes(100)

    with pytest.raises(MalformedCpio):
        list(CpioReader(PieceReader(endless()), files(5, 1), {}).members())
    assert asked < 1000
