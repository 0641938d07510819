"""Digest of relbuild's own files, which identifies the running code.

A change of the code is detected by it, whether or not a format was raised.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pipeline
from pipeline.digest import Digest, canonical_json


@functools.cache
def code_digest() -> Digest:
    """Return the digest of every file that this relbuild consists of: code, templates, profiles."""
    return folder_digest(Path(pipeline.__file__).parent)


def folder_digest(root: Path) -> Digest:
    """Return the digest of the names and contents of all files below a folder.

    Python's compiled files are left out, and what it names while it writes them (`x.pyc.NUMBER`).
    """
    code = (path for path in root.rglob("*") if path.suffix != ".pyc" and "__pycache__" not in path.parts)
    files = [path for path in code if path.is_file()]
    return Digest.of(canonical_json({str(path.relative_to(root)): str(Digest.of(path.read_bytes())) for path in files}))
