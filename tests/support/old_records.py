"""Records of moves as relbuild wrote them before it signed them: mirrors that have some are still read."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from pipeline.digest import canonical_json
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_history import MOVE_TYPE
from pipeline.model.manifests import Manifest
from pipeline.model.publication import Move
from pipeline.oci import media_types
from pipeline.oci.artifacts import EMPTY_DATA, EMPTY_DESCRIPTOR
from pipeline.oci.image_manifest import descriptor_json


def write_down(repository: Repository, move: Move) -> str:
    """Write a move down; returns the record's tag."""
    at = datetime.fromtimestamp(move.at / 1000, UTC)
    stamp = f"{at:%Y%m%dT%H%M%S}{move.at % 1000:03d}Z"
    record = f"move.{move.tag[:90]}.{stamp}.{secrets.token_hex(3)}"
    repository.put_blob(EMPTY_DESCRIPTOR, EMPTY_DATA)
    manifest = _manifest(move)
    repository.put_manifest(manifest)
    repository.put_auxiliary(record, manifest, None)
    return record


def _manifest(move: Move) -> Manifest:
    note = "org.relbuild.move."
    notes = {
        f"{note}tag": move.tag,
        f"{note}to": str(move.after),
        f"{note}at": str(move.at),
        f"{note}why": str(move.why),
        f"{note}version": move.version,
        **({f"{note}from": str(move.before)} if move.before else {}),
    }
    empty = descriptor_json(EMPTY_DESCRIPTOR)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": MOVE_TYPE,
        "config": empty,
        "layers": [empty],
        "annotations": notes,
    }
    return Manifest(media_types.MANIFEST, canonical_json(document))
