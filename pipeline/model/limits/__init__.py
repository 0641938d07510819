"""Registry of the limits, one module each, and the class of their values for an instance.

To add a limit, add a module; `pipeline.model.limit` tells what it declares.

`LIMITS` are all of them in the order of documents; `Limits` are their values for one instance, made from the set.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import field, make_dataclass, replace
from typing import TYPE_CHECKING, overload

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limit import Limit

AnyLimit = Limit[int] | Limit[int | None]


def _declared() -> tuple[AnyLimit, ...]:
    found: list[AnyLimit] = []
    for module in pkgutil.iter_modules(__path__):
        limit = importlib.import_module(f"{__name__}.{module.name}").LIMIT
        assert isinstance(limit, Limit), f"{module.name} declares no LIMIT"
        found.append(limit)
    return tuple(sorted(found, key=lambda limit: (limit.rank, limit.name)))


LIMITS = _declared()

IN_STAGES = tuple(sorted(LIMITS, key=lambda limit: limit.set_by.stage))
"""Limits in the order in which they are set, and reported."""


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class _Values:
        """Stands for the fields, which are known only when all modules are loaded."""

        enforce: bool

        def __init__(self, *, enforce: bool = False, **values: int | None) -> None: ...

else:
    _Values = make_dataclass(
        "_Values",
        [
            *((limit.member, int if limit.default is not None else int | None, field(default=limit.default))
              for limit in LIMITS),
            ("enforce", bool, field(default=False)),
        ],
        frozen=True,
        slots=True,
        kw_only=True,
    )  # fmt: skip


class Limits(_Values):
    """Limits of one instance by their members, None where none was asked for.

    `limits[LIMIT]` is the value of one.

    `enforce`: a limit that the kernel did not take fails the run.
    """

    __slots__ = ()

    @overload
    def __getitem__(self, limit: Limit[int]) -> int: ...

    @overload
    def __getitem__(self, limit: Limit[int | None]) -> int | None: ...

    def __getitem__(self, limit: AnyLimit) -> int | None:
        value: int | None = getattr(self, limit.member)
        return value

    def changed(self, *, enforce: bool | None = None, **values: int | None) -> Limits:
        """Limits with other values, by member. `enforce` None: as it is."""
        return replace(self, enforce=self.enforce if enforce is None else enforce, **values)
