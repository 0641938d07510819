"""Parser of `.repo` and similar INI files, as libdnf's iniparser.cpp, with a size limit.

A comment line begins with `#` or `;`. A line that begins with a blank continues the value above. Quotes around a value
are removed. If an option occurs twice, the last one counts; sections of one name are merged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.beneath import read_file
from pipeline.lazy_dataclasses import dataclass

INI_LIMIT = 4 << 20
"""Maximum bytes of one file: an entitled host's redhat.repo, with all of a vendor's content, has about 500 KiB."""

_BLANK = " \t\r"
_QUOTES = ("'", '"')


_SECRET = re.compile(rb"(?:username|password)\s*=", re.IGNORECASE)
_LOCATION = re.compile(rb"^[ \t\r]*(?:baseurl|metalink|mirrorlist)\s*=", re.MULTILINE | re.IGNORECASE)


def holds_secret(data: bytes) -> bool:
    """Return whether a user's name or a password may stand anywhere in a `.repo` file.

    Coarse on purpose: sections that are not read and comments count, and an `@` in a URL, a proxy or a line
    that continues another.
    """
    if _SECRET.search(data):
        return True
    lines = (line.lower() for line in data.split(b"\n") if b"@" in line)
    return any(b"://" in line or b"proxy" in line or line[:1].isspace() for line in lines)


def is_repo_file(data: bytes) -> bool:
    """Return whether a file, whatever its name, has the form of a `.repo` file."""
    if not _LOCATION.search(data):
        return False
    lines = (line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip())
    return next((line.lstrip()[:1] == b"[" for line in lines if line[:1] not in b"#;"), False)


class IniMalformed(ValueError):
    """The error for a file that is not UTF-8, or with a line that is invalid in this format."""


@dataclass(slots=True)
class IniValue:
    """The value of an option, and the number of the line where it begins."""

    text: str
    line: int


def read_ini(path: Path) -> Mapping[str, Mapping[str, IniValue]]:
    """Read a file's options by section. Raises OSError, and IniMalformed (a ValueError)."""
    try:
        text = read_file(path, INI_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise IniMalformed("it is not UTF-8") from error
    return parse_ini(text)


def parse_ini(text: str) -> Mapping[str, Mapping[str, IniValue]]:
    """Parse a text's options by section. Raises IniMalformed."""
    sections: dict[str, dict[str, IniValue]] = {}
    options: dict[str, IniValue] | None = None
    last: IniValue | None = None
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip(_BLANK)
        if not line or line[0] in "#;":
            last = None
        elif not bare:
            continue
        elif bare.startswith("["):
            options, last = sections.setdefault(_section(bare, number), {}), None
        elif line[0] in _BLANK:
            if last is None:
                raise IniMalformed(f"line {number} continues no value")
            last.text += f"\n{bare}"
        else:
            if options is None:
                raise IniMalformed(f"line {number} stands in no section")
            key, equal, value = bare.partition("=")
            if not equal or not key.strip(_BLANK):
                raise IniMalformed(f"line {number} is not OPTION=VALUE")
            last = options[key.strip(_BLANK)] = IniValue(value.strip(_BLANK), number)
    for found in sections.values():
        for one in found.values():
            one.text = _unquoted(one.text)
    return sections


def _section(bare: str, number: int) -> str:
    name, bracket, rest = bare[1:].partition("]")
    if not bracket or not name or (rest.strip() and rest.strip()[0] not in "#;"):
        raise IniMalformed(f"line {number} is not [SECTION]")
    return name


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES
    return text[1:-1] if quoted else text
