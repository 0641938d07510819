"""index.json of a layout: the entries that it lists, read and replaced whole.

image-spec 1.1, image-layout.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.mirror.atomic_files import replace_file, sync_names
from pipeline.mirror.protocol import TAG
from pipeline.model.image import Descriptor
from pipeline.oci import media_types
from pipeline.oci.image_layout import read_document
from pipeline.oci.image_manifest import DOCUMENT_LIMIT, JsonReader, tag_of

DRAFTS = "ingest"
"""The folder of what is not whole yet: oras uses it for the same."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A descriptor of index.json, and its JSON text, which may say more than is known here."""

    descriptor: Descriptor
    text: str

    @property
    def tag(self) -> str:
        """The tag that it is listed by; empty if by none. Some name `HOST/NAME:TAG`."""
        name = dict(self.descriptor.annotations).get(media_types.REF_NAME, "")
        tag = name if TAG.fullmatch(name) else tag_of(name)
        return tag if TAG.fullmatch(tag) else ""

    def named(self, tag: str) -> IndexEntry:
        """The same under a tag, or under none."""
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
    JsonReader.parse(data, "index.json").get("manifests").items()  # An array or nothing, or this says what is wrong.
    return [index_entry(value) for value in json.loads(data).get("manifests") or ()]


def write_entries(layout: Path, entries: Iterable[IndexEntry]) -> None:
    """Replace the entries of index.json; what else it says is kept.

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
    """A descriptor's JSON value as an entry."""
    return IndexEntry(JsonReader(value, "index.json").descriptor(), json.dumps(value, sort_keys=True))


def tidy_entries(entries: Iterable[IndexEntry]) -> list[IndexEntry]:
    """Return each entry once, without nameless ones whose digest has a named entry.

    That is: an entry without a name is left out while another of the same digest has one.
    """
    every = list(dict.fromkeys(entries))
    named = {entry.descriptor.digest for entry in every if entry.tag}
    return [entry for entry in every if entry.tag or entry.descriptor.digest not in named]
