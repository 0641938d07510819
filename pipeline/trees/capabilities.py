"""Conversion of file capabilities between text and the attribute `security.capability`.

The attribute is of revision 2. The text is libcap's (cap_from_text(3)): clauses separated by white space, each a
comma-separated list of names (or `all`, or nothing for all) followed by one or more operators `=`, `+`, `-` with flags
of `e`, `i`, `p`. The bytes are `struct vfs_cap_data` of linux/capability.h.
"""

from __future__ import annotations

import re
import struct

from pipeline.errors import BuildError

CAPABILITY_XATTR = "security.capability"

CAPABILITY_NAMES = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)
"""In the order of their numbers, without `cap_`."""

_ALL = (1 << len(CAPABILITY_NAMES)) - 1
_REVISION_2 = 0x02000000
_REVISION_3 = 0x03000000
_REVISION_MASK = 0xFF000000
_EFFECTIVE = 1
_V2 = struct.Struct("<5I")
_V3_SIZE = 24
_CLAUSE = re.compile(r"([a-z0-9_,]*)((?:[=+-][eip]*)+)", re.IGNORECASE)
_OPERATION = re.compile(r"([=+-])([eip]*)", re.IGNORECASE)


def capability_attribute(text: str) -> bytes:
    """Return the attribute's value for a text like `cap_net_raw=ep`.

    Raises BuildError `capability-unknown`.
    """
    sets = {"e": 0, "i": 0, "p": 0}
    clauses = text.split()
    if not clauses:
        raise _unknown(text)
    for clause in clauses:
        found = _CLAUSE.fullmatch(clause)
        if not found:
            raise _unknown(text)
        mask = _mask(found.group(1), text)
        for operator, flags in _OPERATION.findall(found.group(2)):
            if operator == "=":
                sets = {name: value & ~mask for name, value in sets.items()}
            for flag in flags.lower():
                sets[flag] = sets[flag] & ~mask if operator == "-" else sets[flag] | mask
    permitted, inheritable = sets["p"], sets["i"]
    if sets["e"] and (permitted | inheritable) & ~sets["e"]:
        raise BuildError(
            "capability-unknown",
            f"'{text}' makes only some capabilities effective; a file has one effective flag for all",
        )
    low = 0xFFFFFFFF
    return _V2.pack(
        _REVISION_2 | (_EFFECTIVE if sets["e"] else 0),
        permitted & low,
        inheritable & low,
        permitted >> 32,
        inheritable >> 32,
    )


def capability_text(value: bytes) -> str:
    """Return the text of the attribute's value (`cap_net_raw=ep`).

    `capability_attribute` turns it into the same value; names with the same flags stand together, in the order of their
    numbers. Raises BuildError `capability-unknown`.
    """
    value = as_revision_2(value)
    if len(value) != _V2.size or int.from_bytes(value[:4], "little") & _REVISION_MASK != _REVISION_2:
        raise BuildError("capability-unknown", f"'{value.hex()[:80]}' is not a valid security.capability attribute")
    magic, permitted, inheritable, high_permitted, high_inheritable = _V2.unpack(value)
    permitted |= high_permitted << 32
    inheritable |= high_inheritable << 32
    effective = bool(magic & _EFFECTIVE)
    named: dict[str, list[str]] = {}
    for number in range(64):
        flags = f"{'i' * (inheritable >> number & 1)}{'p' * (permitted >> number & 1)}"
        if flags:
            name = f"cap_{CAPABILITY_NAMES[number]}" if number < len(CAPABILITY_NAMES) else str(number)
            named.setdefault(f"{'e' * effective}{flags}", []).append(name)
    return " ".join(f"{','.join(names)}={flags}" for flags, names in named.items())


def as_revision_2(value: bytes) -> bytes:
    """Convert an attribute as a user namespace writes it to revision 2, as an image holds it.

    A user namespace writes revision 3, with its root's id. Other values come back as they are.
    """
    if len(value) == _V3_SIZE:
        magic = int.from_bytes(value[:4], "little")
        if magic & _REVISION_MASK == _REVISION_3:
            return (magic & ~_REVISION_MASK | _REVISION_2).to_bytes(4, "little") + value[4:20]
    return value


def _mask(names: str, text: str) -> int:
    if names.lower() in ("", "all"):
        return _ALL
    mask = 0
    for name in names.lower().split(","):
        number = name.removeprefix("cap_")
        if number in CAPABILITY_NAMES:
            mask |= 1 << CAPABILITY_NAMES.index(number)
        elif number.isdecimal() and int(number) < 64:
            mask |= 1 << int(number)
        else:
            raise _unknown(text)
    return mask


def _unknown(text: str) -> BuildError:
    return BuildError("capability-unknown", f"unknown file capabilities: '{text}'")
