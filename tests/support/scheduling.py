"""Which tests run in one process, where several run them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling


class FileScheduling(LoadFileScheduling):
    """Keep a file's tests in one process, and all that read the code as trees: it is parsed there alone."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "the code" if _reads_code(self.config.rootpath / file) else file


@cache
def _reads_code(file: Path) -> bool:
    return "tests.support.source" in file.read_text()
