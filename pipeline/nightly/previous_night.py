"""Read the last night's products from its `nightly.json`, when they are first needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.model.json_form import read_json, refuse_newer
from pipeline.model.night_record import NIGHT_FORMAT, Product

NIGHT_FILE_LIMIT = 256 << 20
"""Bytes of a `nightly.json`: ten thousand products of a hundred packages take a tenth of that."""


class PreviousNight(Mapping[str, Product]):
    """The products of the last night, by name, in this release's form or another's.

    One that cannot be read counts as missing, with one warning: decisions that use it are checked against signed
    records.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._told: set[str] = set()
        self._raw: dict[str, object] | None = None
        self._key = ""

    @property
    def key(self) -> str:
        """The public key, in PEM, that verifies the published images; "" if unknown."""
        self._read()
        return self._key

    def __getitem__(self, name: str) -> Product:
        raw = self._read()[name]
        try:
            return read_json(Product, raw)
        except (ValueError, VerificationError) as error:
            self._tell(f"the previous run's record of '{name}' cannot be read, so its metrics start again: {error}")
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, object]:
        if self._raw is None:
            self._raw = {}
            try:
                self._raw, self._key = self._parsed()
            except (FileNotFoundError, IsADirectoryError):
                pass  # The first night.
            except (OSError, ValueError, RecursionError, VerificationError) as error:
                self._tell(f"the previous run's record cannot be read, so all metrics start again: {error}")
        return self._raw

    def _parsed(self) -> tuple[dict[str, object], str]:
        with self._path.open("rb") as file:
            data = file.read(NIGHT_FILE_LIMIT + 1)
        if len(data) > NIGHT_FILE_LIMIT:
            raise ValueError(f"{self._path} has more than {NIGHT_FILE_LIMIT} bytes")
        night = json.loads(data)
        if not isinstance(night, dict) or not isinstance(night.get("products"), list):
            raise ValueError(f"'{self._path}' is not the record of a nightly run")
        refuse_newer(str(self._path), night.get("format"), NIGHT_FORMAT)
        named = [one for one in night["products"] if isinstance(one, dict) and isinstance(one.get("name"), str)]
        key = night.get("key", "")
        return {one["name"]: one for one in named}, key if isinstance(key, str) else ""

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._warn(text)
