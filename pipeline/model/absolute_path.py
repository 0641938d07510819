"""Type of absolute paths, and the refusal of relative ones in values for another process.

An absolute path means the same in every working directory; tasks that are sent to a worker hold no other.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import NewType

from pipeline.errors import UsageError

AbsolutePath = NewType("AbsolutePath", Path)
"""A path that begins at the root. Only `absolute` makes one, so that any other path does not type-check."""


def absolute(path: Path) -> AbsolutePath:
    """Resolve a path against the working directory.

    Links and `..` in it stay as they are written.
    """
    return AbsolutePath(path.absolute())


def refuse_relative(value: object, where: str = "the work") -> None:
    """Refuse a value that holds a relative path at any depth of its fields, tuples and mappings.

    Raises UsageError `path-relative`, which names the field.
    """
    if isinstance(value, Path):
        if not value.is_absolute():
            raise UsageError(
                "path-relative",
                f"{where} is the relative path '{value}', which is ambiguous on another machine",
                hint="this is a defect of relbuild: report it with the command that was given",
            )
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            refuse_relative(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            refuse_relative(item, where)
    elif isinstance(value, dict):
        for key, item in value.items():
            refuse_relative(item, f"{where}[{key}]")
