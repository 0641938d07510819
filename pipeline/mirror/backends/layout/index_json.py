"""Read and replace the entries of a layout's index.json, with their tags.

image-spec 1.1, image-layout.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import replace_file, sync_names
from pipeline.mirror.protocol import TAG
from pipeline.model.image import Descriptor
from pipeline.oci import media_types
from pipeline.oci.image_layout import read_document
from pipeline.oci.image_manifest import DOCUMENT_LIMIT, JsonReader, tag_of

DRAFTS = "ingest"
"""Name of the folder of drafts (see `atomic_files`): oras uses the same for its temporary files."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A descriptor in index.json, and its JSON text, which may have unknown members."""

    descriptor: Descriptor
    text: str

    @property
    def tag(self) -> str:
        """The entry's tag; empty if it has none. Some tools write `HOST/NAME:TAG`."""
        name = dict(self.descriptor.annotations).get(media_types.REF_NAME, "")
        tag = name if TAG.fullmatch(name) else tag_of(name)
        return tag if TAG.fullmatch(tag) else ""

    def named(self, tag: str) -> IndexEntry:
        """Return the entry with another tag ("": none)."""
        value = json.loads(self.text)
        notes = {key: note for key, note in self.descriptor.annotations if key != media_types.REF_NAME}
        if tag:
            notes[media_types.REF_NAME] = tag
        value.pop("annotations", None)
        if notes:
            value["annotations"] = notes
        return index_entry(value)


def read_entries(layout: Path) -> list[IndexEntry]:
    """Read the entries of a layout's index.json.

    Raises VerificationError, UsageError `not-a-layout`.
    """
    data = read_document(layout / "index.json")
    JsonReader.parse(data, "index.json").get("manifests").items()  # Raises unless it is an array or missing.
    return [index_entry(value) for value in json.loads(data).get("manifests") or ()]


def write_entries(layout: Path, entries: Iterable[IndexEntry]) -> None:
    """Replace the entries of index.json; its other members are kept.

    Raises VerificationError `document-too-large`.
    """
    document = json.loads(read_document(layout / "index.json"))
    document["manifests"] = [json.loads(entry.text) for entry in entries]
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    if len(data) > DOCUMENT_LIMIT:
        raise VerificationError("document-too-large", f"index.json would have more than {DOCUMENT_LIMIT} bytes")
    sync_names(layout / "blobs" / "sha256")
    replace_file(data, layout / "index.json", layout / DRAFTS)


def index_entry(value: dict[str, object]) -> IndexEntry:
    """Make an entry from a descriptor's JSON value."""
    return IndexEntry(JsonReader(value, "index.json").descriptor(), json.dumps(value, sort_keys=True))


def tidy_entries(entries: Iterable[IndexEntry]) -> list[IndexEntry]:
    """Return each entry once, without untagged ones of a digest that a tagged entry has."""
    every = list(dict.fromkeys(entries))
    named = {entry.descriptor.digest for entry in every if entry.tag}
    return [entry for entry in every if entry.tag or entry.descriptor.digest not in named]
