"""Find the emulator of binfmt_misc that runs another architecture's programs here.

Registrations are read as the kernel shows them (Documentation/admin-guide/binfmt-misc.rst). One counts if it has the
flag F: its interpreter was opened when it was registered, so that it is found whatever the root file system is.
"""

from __future__ import annotations

import functools
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pipeline import process
from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass

REGISTRATIONS = Path("/proc/sys/fs/binfmt_misc")

EMULATION_SLOWDOWN = 10
"""Factor of all times that are allowed if the image's programs are emulated: MySQL's first start needs 66
seconds of CPU under qemu and 3.6 without, and deadlines have room for a machine that is twice as slow."""

_REGISTRATION_LIMIT = 4096
"""Bytes of a registration that are read; they have 300."""

_LABEL_SECONDS = 10.0

_LABELS = 64
"""Interpreters of which the version is kept: qemu has one for each of some thirty architectures."""

_NATIVE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "x86_64": frozenset({"amd64", "386"}),
        "aarch64": frozenset({"arm64"}),
        "ppc64le": frozenset({"ppc64le"}),
        "s390x": frozenset({"s390x"}),
        "riscv64": frozenset({"riscv64"}),
    }
)
"""The kernel's names of machines → OCI's names of the architectures whose programs they run by themselves."""

_ELF: Mapping[str, tuple[int, str, int]] = MappingProxyType(
    {
        "amd64": (2, "little", 62),
        "386": (1, "little", 3),
        "arm64": (2, "little", 183),
        "arm": (1, "little", 40),
        "ppc64le": (2, "little", 21),
        "s390x": (2, "big", 22),
        "riscv64": (2, "little", 243),
    }
)
"""OCI's names of architectures → class, byte order and `e_machine` in the header of their programs (elf(5))."""

_FAMILY: Mapping[str, frozenset[str]] = MappingProxyType({"amd64": frozenset({"386"}), "arm64": frozenset({"arm"})})
"""OCI's names of architectures → those whose programs their images may have as well."""

_ELF_HEADER_SIZE = 20
"""Bytes at the beginning of a program that tell its architecture: up to the end of `e_machine` (elf(5))."""

_FIXED = 2
"""ET_EXEC: a program for fixed addresses."""

_POSITION_INDEPENDENT = 3
"""ET_DYN: what programs of today's distributions are."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """An interpreter that the kernel runs programs of one architecture with.

    `interpreter` is the path in its registration, and `keeps_name` whether it gets the program's own name as well
    (flag P). `label` is for people and reports, such as `qemu-aarch64 7.2.22`.
    """

    interpreter: str
    keeps_name: bool
    label: str

    def program_arguments(self, arguments: list[bytes]) -> list[bytes]:
        """Return an emulated program's arguments without those that the kernel put first."""
        before = 2 if self.keeps_name else 1
        if len(arguments) <= before or arguments[0] != self.interpreter.encode():
            return arguments
        return arguments[before:]


def find_emulator(
    architecture: str, *, machine: str | None = None, registrations: Path = REGISTRATIONS
) -> Emulator | None:
    """Return the emulator for programs of `architecture` (OCI's name), None if none is needed.

    A registration for the machine's own programs counts too, for the kernel asks the registrations first. Raises
    EnvironmentLacking `architecture-foreign` if the machine can run them in no way.
    """
    here = machine or platform.machine()
    registration = _chosen(_program_header(architecture), _registrations(registrations))
    if registration is not None and registration.in_any_root:
        return registration.emulator()
    if registration is None and architecture in _NATIVE.get(here, frozenset()):
        return None
    raise EnvironmentLacking(
        "architecture-foreign",
        f"this machine ({here}) cannot run programs for {architecture}: {_obstacle(registrations, registration)}",
        hint="install qemu-user-static and binfmt-support (Debian) or qemu-user-static (Fedora), "
        "or build on a machine, or with a night's worker, of that architecture",
    )


def emulator_label(architecture: str) -> str:
    """Return the label of the emulator for `architecture`, "" if none is needed.

    Raises as `find_emulator`.
    """
    emulator = find_emulator(architecture)
    return emulator.label if emulator else ""


def native_architectures(machine: str | None = None) -> tuple[str, ...]:
    """Return OCI's names of the architectures whose images this machine runs by itself, sorted.

    An older one of the same family (386 of amd64) is not named by itself.
    """
    here = machine or platform.machine()
    names = _NATIVE.get(here, frozenset({here}))
    return tuple(sorted(name for name in names if not any(name in _FAMILY.get(other, ()) for other in names)))


def emulation_slowdown(architecture: str) -> int:
    """Return how many times longer programs of `architecture` may take on this machine.

    It is 1 if they are not emulated. Raises as `find_emulator`.
    """
    return EMULATION_SLOWDOWN if find_emulator(architecture) is not None else 1


def emulated_architectures(registrations: Path = REGISTRATIONS) -> tuple[str, ...]:
    """Return OCI's names of the architectures that are emulated here, sorted."""
    native = _NATIVE.get(platform.machine(), frozenset())
    known = list(_registrations(registrations))
    chosen = {name: _chosen(_program_header(name), known) for name in _ELF if name not in native}
    return tuple(sorted(name for name, one in chosen.items() if one is not None and one.in_any_root))


def emulated_by(interpreter: str, registrations: Path = REGISTRATIONS) -> tuple[str, ...]:
    """Return OCI's names of the architectures that an interpreter is registered for, sorted."""
    known = [one for one in _registrations(registrations) if one.interpreter == interpreter and one.in_any_root]
    return tuple(sorted(name for name in _ELF if any(one.matches(_program_header(name)) for one in known)))


def program_architecture(header: bytes) -> str:
    """Return the architecture of a program by its first bytes, "" if it is no ELF file.

    It is OCI's name, or `ELF machine N` for one that is not known here.
    """
    kind = _machine(header)
    if kind is None:
        return ""
    exact = (header[4], *kind)
    alike = sorted(_ELF, key=lambda name: _ELF[name] != exact)
    return next((name for name in alike if _ELF[name][1:] == kind), f"ELF machine {kind[1]}")


def is_program_for(header: bytes, architecture: str) -> bool:
    """Return whether a program with this ELF header may be in an image of `architecture`.

    The class is not compared: x32 and ILP32 programs are run by the same machines.
    """
    allowed = [name for name in _ELF if may_have(architecture, name)]
    return architecture not in _ELF or any(_ELF[name][1:] == _machine(header) for name in allowed)


def is_executable_of(header: bytes, architecture: str) -> bool:
    """Return whether an ELF file is an executable of `architecture` itself.

    "" is the machine's. Class and type are compared as well (ET_EXEC, ET_DYN).
    """
    kind = _machine(header)
    names = (architecture,) if architecture else native_architectures()
    if kind is None or not any(_ELF.get(name) == (header[4], *kind) for name in names):
        return False
    return int.from_bytes(header[16:18], kind[0]) in (_FIXED, _POSITION_INDEPENDENT)


def may_have(architecture: str, program: str) -> bool:
    """Return whether an image of `architecture` may have programs of the architecture `program`."""
    return program == architecture or program in _FAMILY.get(architecture, ())


def _machine(header: bytes) -> tuple[Literal["big", "little"], int] | None:
    """Return byte order and `e_machine` of an ELF header; None if it is none."""
    if len(header) < _ELF_HEADER_SIZE or not header.startswith(b"\x7fELF") or header[5] not in (1, 2):
        return None
    order: Literal["big", "little"] = "big" if header[5] == 2 else "little"
    return order, int.from_bytes(header[18:20], order)


@dataclass(frozen=True, slots=True)
class _Registration:
    interpreter: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes

    @property
    def in_any_root(self) -> bool:
        """True if its interpreter is found whatever the root file system is."""
        return "F" in self.flags

    def matches(self, header: bytes) -> bool:
        """Return whether it is for programs that begin with `header`."""
        end = self.offset + len(self.magic)
        if end > len(header):
            return False
        masked = zip(header[self.offset : end], self.magic, self.mask, strict=True)
        return all((ours ^ theirs) & mask == 0 for ours, theirs, mask in masked)

    def emulator(self) -> Emulator:
        return Emulator(self.interpreter, "P" in self.flags, _label(Path(self.interpreter)))


def _chosen(header: bytes, known: Iterable[_Registration]) -> _Registration | None:
    """Return the newest registration for programs that begin with `header`, as the kernel does."""
    return next((one for one in known if header and one.matches(header)), None)


def _registrations(folder: Path) -> Iterator[_Registration]:
    """Read the enabled registrations by magic, the newest first.

    There are none where they are switched off. The kernel asks them in this order (fs/binfmt_misc.c puts a new one
    before the others), and a registration's file is as old as itself.
    """
    try:
        if (folder / "status").read_text().strip() != "enabled":
            return
        found = [path for path in folder.iterdir() if path.name not in ("status", "register")]
        files = sorted(found, key=lambda path: (-_registered(path), path.name))
    except OSError:
        return
    for file in files:
        try:
            with file.open(encoding="ascii", errors="replace") as open_file:
                text = open_file.read(_REGISTRATION_LIMIT)
        except OSError:
            continue  # It was removed meanwhile.
        facts = dict(re.findall(r"(?m)^(interpreter|flags:|offset|magic|mask) ?(.*)$", text))
        if not text.startswith("enabled") or not re.fullmatch(r"([0-9a-f]{2})+", facts.get("magic", "")):
            continue
        magic = bytes.fromhex(facts["magic"])
        mask = bytes.fromhex(facts["mask"]) if "mask" in facts else b"\xff" * len(magic)
        yield _Registration(facts["interpreter"], facts.get("flags:", ""), int(facts.get("offset", "0")), magic, mask)


def _registered(file: Path) -> int:
    """Return when a registration was made, in nanoseconds since the epoch; 0 if it is gone."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _program_header(architecture: str) -> bytes:
    """Return the first 20 bytes of a program; b"" for an unknown architecture."""
    if architecture not in _ELF:
        return b""
    word, order, machine = _ELF[architecture]
    big = order == "big"
    numbers = b"".join(number.to_bytes(2, "big" if big else "little") for number in (_POSITION_INDEPENDENT, machine))
    return bytes([0x7F, *b"ELF", word, 2 if big else 1, 1, 0]) + bytes(8) + numbers


def _label(interpreter: Path) -> str:
    """Return name and version of an interpreter.

    Its file may be missing here, for the kernel has it open: then the file's name.
    """
    path = interpreter.resolve()
    try:
        status = path.stat()
        return _version(path, status.st_size, status.st_mtime_ns)
    except (OSError, EnvironmentLacking):
        return path.name


@functools.lru_cache(maxsize=_LABELS)
def _version(path: Path, size: int, changed: int) -> str:
    """Return what `--version` says, once for each state of the file.

    The file is named by `size` and `changed` (nanoseconds) too, so that an upgrade is seen. It takes a tenth of a
    second, and checks of processes ask for it again and again.
    """
    told = process.run([path, "--version"], timeout=_LABEL_SECONDS, check=False).stdout.decode(errors="replace")
    found = re.match(r"(\S+) version (\S+)", told)
    return f"{found[1]} {found[2]}" if found else path.name


def _obstacle(registrations: Path, found: _Registration | None) -> str:
    if found is not None:
        return f"its newest registration, of '{found.interpreter}', lacks the flag F"
    if not (registrations / "status").exists():
        return f"binfmt_misc is not mounted at {registrations}"
    return "no emulator is registered for it with the flag F"
