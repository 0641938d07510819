"""rpm's C library through ctypes, under the names of rpm's Python bindings.

For interpreters that no bindings on this machine were built for: the library's functions are the same for each. Only
what relbuild uses is here. Values come out as the bindings give them (python/header-py.c, rpmtd-py.c, rpmts-py.c).
Raises ImportError where there is no library, or none with these functions (rpm 4.16 to 6).
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint8, c_uint16, c_uint32, c_void_p
from typing import Final

_SONAMES = ("librpm.so.10", "librpm.so.9")
"""Those of rpm 4.20 and 6, and of rpm 4.15 to 4.19."""

_HEADERGET_EXT = 1 << 1
_RPMTD_INVALID = 1 << 4
"""include/rpm/header.h, rpmtd.h"""
_INTEGERS = {1: c_uint8, 2: c_uint8, 3: c_uint16, 4: c_uint32, 5: c_int64}
_STRING, _BINARY = 6, 7
"""rpmTagType (include/rpm/rpmtag.h); the others are arrays of strings."""
_ARRAY_RETURN = 0x0002_0000
_RETURN_MASK = 0xFFFF_0000
_READ_ERRORS = {3: "public key not trusted", 4: "public key not available"}
"""rpmRC of `rpmReadPackageFile`, and what the bindings raise for it."""

RPMVSF_DEFAULT: Final = 0
RPMSENSE_TRIGGERIN: Final = 1 << 16
RPMSENSE_TRIGGERPREIN: Final = 1 << 25
RPMLOG_ERR: Final = 3
RPMLOG_CRIT: Final = 2


class error(Exception):  # noqa: N801  as in the bindings
    """Refusal by rpm's library."""


class _TagData(ctypes.Structure):
    """The public fields of `struct rpmtd_s`."""

    _fields_ = [
        ("tag", c_uint32), ("type", c_uint32), ("count", c_uint32), ("data", c_void_p), ("flags", c_uint32),
    ]  # fmt: skip


_FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "Fclose": (c_int, (c_void_p,)),
    "fdDup": (c_void_p, (c_int,)),
    "free": (None, (c_void_p,)),
    "headerExport": (c_void_p, (c_void_p, POINTER(c_uint32))),
    "headerFormat": (c_void_p, (c_void_p, c_char_p, POINTER(c_char_p))),
    "headerFree": (c_void_p, (c_void_p,)),
    "headerGet": (c_int, (c_void_p, c_uint32, POINTER(_TagData), c_uint32)),
    "headerIsEntry": (c_int, (c_void_p, c_uint32)),
    "headerPutUint32": (c_int, (c_void_p, c_uint32, POINTER(c_uint32), c_uint32)),
    "pgpParsePkts": (c_int, (c_char_p, POINTER(c_void_p), POINTER(c_size_t))),
    "rpmKeyringFree": (c_void_p, (c_void_p,)),
    "rpmPopMacro": (c_int, (c_void_p, c_char_p)),
    "rpmPubkeyFree": (c_void_p, (c_void_p,)),
    "rpmPubkeyNew": (c_void_p, (c_void_p, c_size_t)),
    "rpmPushMacro": (c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_int)),
    "rpmReadConfigFiles": (c_int, (c_char_p, c_char_p)),
    "rpmReadPackageFile": (c_int, (c_void_p, c_void_p, c_char_p, POINTER(c_void_p))),
    "rpmTagGetReturnType": (c_uint32, (c_uint32,)),
    "rpmTagGetValue": (c_int, (c_char_p,)),
    "rpmlogSetMask": (c_int, (c_int,)),
    "rpmtdFree": (c_void_p, (POINTER(_TagData),)),
    "rpmtdFreeData": (None, (POINTER(_TagData),)),
    "rpmtdNew": (POINTER(_TagData), ()),
    "rpmtsCreate": (c_void_p, ()),
    "rpmtsFree": (c_void_p, (c_void_p,)),
    "rpmtsGetKeyring": (c_void_p, (c_void_p, c_int)),
    "rpmtsSetKeyring": (c_int, (c_void_p, c_void_p)),
    "rpmtsSetRootDir": (c_int, (c_void_p, c_char_p)),
    "rpmtsSetVSFlags": (c_uint32, (c_void_p, c_uint32)),
    "rpmverCmp": (c_int, (c_void_p, c_void_p)),
    "rpmverFree": (c_void_p, (c_void_p,)),
    "rpmverNew": (c_void_p, (c_char_p, c_char_p, c_char_p)),
}
_VERSION = "RPMVERSION"
"""The library's version, a text."""


def _load() -> tuple[str, ctypes.PyDLL]:
    lacking = []
    for name in _SONAMES:
        try:
            # Other threads wait, as under the bindings: not all of rpm is made for them.
            library = ctypes.PyDLL(name, use_errno=True)
        except OSError:
            continue
        missing = [function for function in (*_FUNCTIONS, _VERSION) if not hasattr(library, function)]
        if missing:
            lacking.append(f"{name} has no '{missing[0]}'")
            continue
        for function, types in _FUNCTIONS.items():
            _declare(library, function, types)
        return name, library
    raise ImportError("; ".join(lacking) or f"there is no {' or '.join(_SONAMES)}")


def _declare(library: ctypes.CDLL, function: str, types: tuple[object, tuple[object, ...]]) -> None:
    found = getattr(library, function)
    found.restype, found.argtypes = types


SONAME, _rpm = _load()
_concurrent = ctypes.CDLL(SONAME)
_declare(_concurrent, "rpmReadPackageFile", _FUNCTIONS["rpmReadPackageFile"])
_read_package = _concurrent.rpmReadPackageFile  # Other threads run meanwhile, as under the bindings.

__version__ = (c_char_p.in_dll(_rpm, _VERSION).value or b"").decode()
_RPMVSF_NOSIGNATURES: Final = 0xC_0C00 | (1 << 12 if int(__version__.partition(".")[0]) >= 6 else 0)
"""Of any key; rpm 6 has one more."""

if _rpm.rpmReadConfigFiles(None, None) != 0:
    raise ImportError("rpm's configuration (rpmrc, macros) cannot be read")


def __getattr__(name: str) -> int:
    """Return the number of `RPMTAG_NAME`."""
    number = int(_rpm.rpmTagGetValue(name.removeprefix("RPMTAG_").encode())) if name.startswith("RPMTAG_") else -1
    if number == -1:
        raise AttributeError(f"no '{name}' in rpm {__version__}")
    globals()[name] = number
    return number


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="surrogateescape")


class hdr:  # noqa: N801  as in the bindings
    """An RPM's header."""

    def __init__(self, pointer: c_void_p) -> None:
        self._pointer = pointer

    def __del__(self) -> None:
        """Free the header."""
        _rpm.headerFree(self._pointer)

    def __getitem__(self, tag: int) -> object:
        """Return the value of a tag: None or an empty list without one."""
        data = _rpm.rpmtdNew()
        try:
            _rpm.headerGet(self._pointer, tag, data, _HEADERGET_EXT)
            return _value(data.contents, array=_rpm.rpmTagGetReturnType(tag) & _RETURN_MASK == _ARRAY_RETURN)
        finally:
            _rpm.rpmtdFreeData(data)
            _rpm.rpmtdFree(data)

    def __setitem__(self, tag: int, value: int) -> None:
        """Add a tag of one 32-bit number."""
        if _rpm.headerIsEntry(self._pointer, tag):
            raise TypeError("tag already exists")
        _rpm.headerPutUint32(self._pointer, tag, byref(c_uint32(value)), 1)

    def sprintf(self, form: str) -> str:
        """Expand a query format."""
        reason = c_char_p()
        made = _rpm.headerFormat(self._pointer, form.encode(), byref(reason))
        if not made:
            raise error(_text(reason.value))
        try:
            return _text(ctypes.string_at(made))
        finally:
            _rpm.free(made)

    def unload(self) -> bytes:
        """Return the header as bytes, without its magic."""
        size = c_uint32()
        made = _rpm.headerExport(self._pointer, byref(size))
        if not made or not size.value:
            raise error("can't unload bad header")
        try:
            return ctypes.string_at(made, size.value)
        finally:
            _rpm.free(made)


def _value(data: _TagData, *, array: bool) -> object:
    if data.flags & _RPMTD_INVALID:
        raise error("invalid header data")
    count = data.count
    if not count or not data.data:
        return [] if array else None
    if data.type == _BINARY:
        return ctypes.string_at(data.data, count)
    values: list[object]
    if data.type in _INTEGERS:
        values = list((_INTEGERS[data.type] * count).from_address(data.data))
    elif data.type == _STRING:
        values = [_text(ctypes.string_at(data.data))]
    else:
        values = [_text(raw) for raw in (c_char_p * count).from_address(data.data)]
    return values if array else values[0]


class pubkey:  # noqa: N801  as in the bindings
    """An armored certificate that rpm can read."""

    def __init__(self, armored: bytes) -> None:
        packets, size = c_void_p(), c_size_t()
        if _rpm.pgpParsePkts(armored, byref(packets), byref(size)) <= 0:
            raise ValueError("invalid PGP armor")
        key = _rpm.rpmPubkeyNew(packets, size)
        _rpm.free(packets)
        if not key:
            raise ValueError("invalid pubkey")
        _rpm.rpmPubkeyFree(key)


class keyring:  # noqa: N801  as in the bindings
    """A keyring, as a transaction set loaded it."""

    def __init__(self, pointer: c_void_p) -> None:
        self.pointer = pointer

    def __del__(self) -> None:
        """Free the keyring."""
        _rpm.rpmKeyringFree(self.pointer)


class TransactionSet:
    """A transaction set, to read packages with."""

    def __init__(self, root: str, flags: int) -> None:
        self._pointer = _rpm.rpmtsCreate()
        _rpm.rpmtsSetRootDir(self._pointer, root.encode())
        _rpm.rpmtsSetVSFlags(self._pointer, flags)

    def __del__(self) -> None:
        """Free the transaction set."""
        _rpm.rpmtsFree(self._pointer)

    def setVSFlags(self, flags: int) -> None:  # noqa: N802  as in the bindings
        """Set what is verified of a package."""
        _rpm.rpmtsSetVSFlags(self._pointer, flags)

    def setKeyring(self, keys: keyring) -> None:  # noqa: N802  as in the bindings
        """Set the keyring that signatures are verified with."""
        _rpm.rpmtsSetKeyring(self._pointer, keys.pointer)

    def getKeyring(self, load: bool) -> keyring:  # noqa: N802  as in the bindings
        """Return the keyring, loaded from where the macros say."""
        return keyring(_rpm.rpmtsGetKeyring(self._pointer, int(load)))

    def hdrFromFdno(self, number: int) -> hdr:  # noqa: N802  as in the bindings
        """Read and verify the header of a package from an open file.

        Raises `error`, and OSError where the process has no file descriptor left.
        """
        opened, header = _rpm.fdDup(number), c_void_p()
        if not opened:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            status = _read_package(self._pointer, opened, None, byref(header))
        finally:
            _rpm.Fclose(opened)
        found = hdr(header) if header.value else None
        if status != 0 or found is None:
            raise error(_READ_ERRORS.get(status, "error reading package header"))
        return found


def labelCompare(a: tuple[str, str, str], b: tuple[str, str, str]) -> int:  # noqa: N802  as in the bindings
    """Compare two (epoch, version, release) as rpm does. Raises ValueError for an empty version."""
    left, right = (_rpm.rpmverNew(*(part.encode(errors="surrogateescape") for part in one)) for one in (a, b))
    try:
        if not left or not right:  # `rpmverCmp` reads them without a look.
            raise ValueError("invalid version")
        return int(_rpm.rpmverCmp(left, right))
    finally:
        _rpm.rpmverFree(left)
        _rpm.rpmverFree(right)


def addMacro(name: str, value: str) -> None:  # noqa: N802  as in the bindings
    """Define a macro."""
    _rpm.rpmPushMacro(None, name.encode(), None, value.encode(), -1)


def delMacro(name: str) -> None:  # noqa: N802  as in the bindings
    """Remove a macro's newest definition."""
    _rpm.rpmPopMacro(None, name.encode())


def setVerbosity(level: int) -> None:  # noqa: N802  as in the bindings
    """Let the library log what is at least as grave as `level`."""
    _rpm.rpmlogSetMask((1 << (level + 1)) - 1)
