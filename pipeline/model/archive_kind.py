"""Kinds of archive files that an image is written as."""

from __future__ import annotations

from typing import Literal

ArchiveKind = Literal["oci", "docker"]
