"""Whether the program that an image starts is of the image's architecture."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import SmokeError
from pipeline.sandbox.emulation import is_program_for, program_architecture
from pipeline.sandbox.entry_program import is_startable, program_linker, require_entry_program
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime_bundle import ProcessPlan
from tests.support.static_programs import server

NATIVE, FOREIGN = server("aarch64"), server("x86_64")
"""Of the image, which is for arm64."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("usr/bin", "opt/tool", "srv"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    return tmp_path


@pytest.fixture
def files(root: Path) -> Iterator[RootFs]:
    handle = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield RootFs(handle, 0)
    os.close(handle)


def put(root: Path, path: str, content: bytes, mode: int = 0o755) -> None:
    (root / path).write_bytes(content)
    (root / path).chmod(mode)


def require(files: RootFs, *argv: str, architecture: str = "arm64", directory: str = "/") -> None:
    require_entry_program(files, ProcessPlan(argv, ("PATH=/opt/tool:/usr/bin",), directory), architecture)


def refused(files: RootFs, *argv: str, directory: str = "/") -> str:
    with pytest.raises(SmokeError) as caught:
        require(files, *argv, directory=directory)
    assert caught.value.code == "program-foreign"
    return str(caught.value.problems[0].message)


def test_a_program_of_another_architecture_is_refused_either_way(root: Path, files: RootFs) -> None:
    put(root, "usr/bin/serve", FOREIGN)
    assert refused(files, "/usr/bin/serve") == "the program '/usr/bin/serve' is for amd64, but the image is for arm64"
    require(files, "/usr/bin/serve", architecture="amd64")
    put(root, "usr/bin/serve", NATIVE)
    require(files, "/usr/bin/serve")
    with pytest.raises(SmokeError, match="is for arm64, but the image is for amd64"):
        require(files, "/usr/bin/serve", architecture="amd64")


def test_it_is_found_as_the_runtime_finds_it(root: Path, files: RootFs) -> None:
    put(root, "usr/bin/serve", FOREIGN)
    assert "'/usr/bin/serve'" in refused(files, "serve")
    put(root, "opt/tool/serve", NATIVE, mode=0o644)
    assert "'/usr/bin/serve'" in refused(files, "serve")
    put(root, "opt/tool/serve", NATIVE)
    require(files, "serve")
    (root / "srv/link").symlink_to("/bin/serve")
    assert "'/srv/./link'" in refused(files, "./link", directory="/srv")


def test_interpreters_of_scripts_are_looked_at_too(root: Path, files: RootFs) -> None:
    put(root, "usr/bin/sh", FOREIGN)
    put(root, "usr/bin/env", NATIVE)
    put(root, "usr/bin/start", b"#! /bin/sh -e \nexec serve\n")
    put(root, "usr/bin/begin", b"#!/usr/bin/start\n")
    put(root, "usr/bin/by-env", b"#!/usr/bin/env sh\n")
    for command in (["/usr/bin/start"], ["begin"], ["by-env"], ["env", "A=b", "sh", "-c", "true"]):
        assert "'/bin/sh'" in refused(files, *command) or "'/usr/bin/sh'" in refused(files, *command)
    put(root, "usr/bin/sh", NATIVE)
    for command in (["/usr/bin/start"], ["begin"], ["by-env"], ["env", "A=b", "sh", "-c", "true"]):
        require(files, *command)


@pytest.mark.parametrize(
    "words",
    [
        ["-S", "sh -e"],
        ["-Ssh -e"],
        ["-vS A=b sh"],
        ["--split-string=-i A='b c' sh"],
        ["-i", "-u", "HOME", "A=b", "sh"],
        ["-C", "/srv", "--unset=HOME", "-", "sh"],
    ],
)
def test_the_command_behind_options_of_env_is_looked_at(words: list[str], root: Path, files: RootFs) -> None:
    put(root, "usr/bin/sh", FOREIGN)
    put(root, "usr/bin/env", NATIVE)
    assert "'/usr/bin/sh'" in refused(files, "env", *words)
    put(root, "usr/bin/start", f"#!/usr/bin/env {' '.join(words)}\n".encode())
    if words[0].startswith(("-S", "-vS", "--split")):
        assert "'/usr/bin/sh'" in refused(files, "/usr/bin/start")


def test_what_is_no_program_is_left_to_the_runtime(root: Path, files: RootFs) -> None:
    put(root, "usr/bin/loop", b"#!/usr/bin/loop\n")
    put(root, "usr/bin/text", b"\x7fELF")
    put(root, "usr/bin/empty", b"#!\n")
    put(root, "usr/bin/env", NATIVE)
    (root / "usr/bin/folder").mkdir()
    (root / "usr/bin/self").symlink_to("self")
    names = ["loop", "text", "empty", "folder", "self", "missing", "", "a\0b", "\ud800", "x" * 5000, "env"]
    for name in names:
        require(files, name)
        require(files, f"/usr/bin/{name}")
    for words in (["-i", "missing"], ["--unknown", "serve"], ["-S", "'"], ["-S"], ["-u"], ["A=b"] * 200, ["-S-S"]):
        require(files, "env", *words)


@pytest.mark.parametrize(
    ("header", "found", "images"),
    [
        ("7f454c4602010100 0000000000000000 0200 3e00", "amd64", {"amd64"}),
        ("7f454c4601010100 0000000000000000 0300 3e00", "amd64", {"amd64"}),  # x32
        ("7f454c4601010103 0000000000000000 0300 0300", "386", {"386", "amd64"}),
        ("7f454c4602010100 0000000000000000 0300 b700", "arm64", {"arm64"}),
        ("7f454c4601010100 0000000000000000 0200 2800", "arm", {"arm", "arm64"}),
        ("7f454c4602020100 0000000000000000 0002 0016", "s390x", {"s390x"}),
        ("7f454c4602020100 0000000000000000 0002 0015", "ELF machine 21", set()),  # ppc64, big-endian
        ("7f454c4601020100 0000000000000000 0002 0008", "ELF machine 8", set()),
    ],
)
def test_a_header_names_its_architecture_and_the_images_it_may_be_in(header: str, found: str, images: set[str]) -> None:
    data = bytes.fromhex(header)
    assert program_architecture(data) == found
    every = ("amd64", "386", "arm64", "arm", "ppc64le", "s390x", "riscv64")
    assert {name for name in every if is_program_for(data, name)} == images


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(15), b"\x7fELF" + bytes(16)])
def test_other_files_have_no_architecture(data: bytes) -> None:
    assert program_architecture(data) == ""


def elf(linker: bytes, *, wide: bool = True, order: str = "<", machine: int = 183) -> bytes:
    """The first bytes of a program for `machine` (arm64) that names a dynamic linker."""
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    form, at, size = ("HHIQQQIHHHHHH", 64, 56) if wide else ("HHIIIIIHHHHHH", 52, 32)
    head = ident + struct.pack(f"{order}{form}", 2, machine, 1, 0, at, 0, 0, at, size, 2, 0, 0, 0)
    place = at + 2 * size
    first = struct.pack(f"{order}I", 6).ljust(size, b"\0")
    second = struct.pack(f"{order}IIQ" if wide else f"{order}II", *((3, 0, place) if wide else (3, place)))
    return head + first + second.ljust(size, b"\0") + linker


def test_a_programs_linker_is_read_in_either_class_and_order() -> None:
    for wide in (True, False):
        for order in "<>":
            assert program_linker(elf(b"/lib/ld.so\0", wide=wide, order=order).ljust(100, b"\0")) == "/lib/ld.so"
    assert program_linker(NATIVE) == ""


def test_a_damaged_header_tells_no_linker() -> None:
    whole = elf(b"/lib/ld.so\0")
    for damaged in (whole[:60], whole[:100], whole[:-1], elf(b"\0"), whole[:54] + b"\xff\xff\xff\xff" + whole[58:]):
        assert program_linker(damaged) is None
    assert program_linker(whole[:54] + b"\1\0" + whole[56:]) is None
    assert program_linker(whole[:32] + b"\xff" * 8 + whole[40:]) is None


def test_what_the_kernel_would_not_start_is_not_startable(root: Path, files: RootFs) -> None:
    def startable(program: str, architecture: str = "arm64") -> bool:
        return is_startable(files, ProcessPlan((program,), ("PATH=/usr/bin",)), architecture)

    put(root, "usr/bin/static", NATIVE)
    put(root, "usr/bin/foreign", FOREIGN)
    put(root, "usr/bin/text", b"echo no interpreter\n")
    put(root, "usr/bin/script", b"#!/bin/static -x\n")
    put(root, "usr/bin/broken", b"#!/bin/nowhere\n")
    put(root, "usr/bin/dynamic", elf(b"/usr/bin/linker\0"))
    put(root, "usr/bin/closed", NATIVE, 0o644)
    put(root, "usr/bin/family", elf(b"/usr/bin/static\0", wide=False, machine=40))
    put(root, "usr/bin/narrow", elf(b"/usr/bin/static\0", wide=False))
    put(root, "usr/bin/object", NATIVE[:16] + b"\1\0" + NATIVE[18:])
    put(root, "usr/bin/sizes", elf(b"/usr/bin/static\0")[:54] + b"\x40\0" + elf(b"/usr/bin/static\0")[56:])
    assert startable("/bin/static") and startable("/bin/script") and startable("static")
    for program in ("/bin/foreign", "/bin/text", "/bin/broken", "/bin/dynamic", "/bin/closed", "/bin/nowhere", "/srv"):
        assert not startable(program), program
    for program in ("/bin/family", "/bin/narrow", "/bin/object", "/bin/sizes"):
        assert not startable(program), program
    assert startable("/bin/foreign", "") and startable("/bin/foreign", "amd64")
    put(root, "usr/bin/linker", NATIVE, 0o644)
    assert not startable("/bin/dynamic")
    (root / "usr/bin/linker").chmod(0o755)
    assert startable("/bin/dynamic")
