"""Name files in a night's failures as they were typed, not by absolute paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.model.night_record import Failure, Product

_NO_PATH_BEFORE, _NO_NAME_AFTER = r"(?<![\w./-])", r"(?![\w.-])"


class TypedPaths:
    """The relative paths that a night was given, and the folder that they are relative to."""

    def __init__(self, folder: Path, given: Iterable[Path]) -> None:
        pairs = {os.path.normpath(folder / path): str(path) for path in given if not path.is_absolute()}
        self._given = {whole: typed for whole, typed in pairs.items() if Path(whole) not in (folder, *folder.parents)}
        here = [] if folder == Path(folder.anchor) else [re.escape(f"{folder}/")]
        # The longest first: a folder may lie in another one that was given.
        wholes = [f"{re.escape(whole)}{_NO_NAME_AFTER}" for whole in sorted(self._given, key=len, reverse=True)]
        self._found = re.compile(_NO_PATH_BEFORE + f"(?:{'|'.join((*wholes, *here))})") if wholes or here else None

    def told(self, product: Product) -> Product:
        """Return a product whose failure, if it has one, names files as they were typed."""
        failure, why = product.run.failure, self._text(product.run.why)
        told = failure and self._failure(failure)
        return product if failure is None else replace(product, run=replace(product.run, why=why, failure=told))

    def _failure(self, failure: Failure) -> Failure:
        return replace(
            failure,
            message=self._text(failure.message),
            place=self._text(failure.place),
            hint=self._text(failure.hint),
            log=tuple(map(self._text, failure.log)),
        )

    def _text(self, text: str) -> str:
        return self._found.sub(lambda found: self._given.get(found[0], ""), text) if self._found else text
