"""What the last night said, read from its `nightly.json` when somebody asks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.model.json_form import from_json
from pipeline.model.night import NIGHT_FORMAT, Product

LIMIT = 256 << 20
"""Bytes of a `nightly.json`: ten thousand products of a hundred packages come to a tenth of that."""


class FormerNight(Mapping[str, Product]):
    """The products of the last night, by name. One that cannot be read counts as not there: it is a convenience, and
    whatever is done because of it is checked against what is signed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw: dict[str, object] | None = None
        self._key = ""

    @property
    def key(self) -> str:
        """The public key, in PEM, that what was published is verified with; "" if nobody knows."""
        self._read()
        return self._key

    def __getitem__(self, name: str) -> Product:
        raw = self._read()[name]
        try:
            return from_json(Product, raw)
        except (ValueError, VerificationError):
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, object]:
        if self._raw is None:
            self._raw = {}
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                with self._path.open("rb") as file:
                    night = json.loads(file.read(LIMIT))
                if night["format"] == NIGHT_FORMAT:
                    self._raw = {one["name"]: one for one in night["products"]}
                    self._key = str(night["key"])
        return self._raw
