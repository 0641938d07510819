"""Tables of all format versions, by what a raised one causes: rebuild, retest or nothing.

A test finds all constants of the code that are formats, schemas and versions, and demands that each is in one of these
tables. The running code itself is identified by `relbuild_digest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pipeline
from pipeline import launch
from pipeline.layers.layer_formats import LAYER_FORMAT, SEGMENT_FORMAT, STATE_LAYER_FORMAT
from pipeline.model import plan_form
from pipeline.packages import lua
from pipeline.render import templates as rendering
from pipeline.resolve import solv_cache

IMAGE_FORMATS: Mapping[str, int] = MappingProxyType(
    {
        "pipeline.FORMAT": pipeline.FORMAT,
        "pipeline.launch.CONTENTS_FORMAT": launch.CONTENTS_FORMAT,
        "pipeline.layers.layer.FORMAT": LAYER_FORMAT,
        "pipeline.layers.segments.FORMAT": SEGMENT_FORMAT,
        "pipeline.layers.state_layer.FORMAT": STATE_LAYER_FORMAT,
        "pipeline.packages.lua._FORMAT": lua._FORMAT,
        "pipeline.render.templates.FORMAT": rendering.FORMAT,
        "pipeline.resolve.solv_cache._FORMAT": solv_cache._FORMAT,
    }
)
"""Formats that an image's bytes, or documents on its content, depend on.
If one differs, the image is built again."""

TEST_FORMATS: Mapping[str, int] = MappingProxyType(
    {
        "pipeline.launch.FORMAT": launch.FORMAT,
        "pipeline.model.plan_form._PLAN_VERSION": plan_form._PLAN_VERSION,
    }
)
"""Formats that a test's verdict depends on: if one differs, the image is tested again."""

DOCUMENT_FORMATS = frozenset(
    {
        "pipeline.build.remembered_build.FORMAT",
        "pipeline.layers.own_blobs.FORMAT",
        "pipeline.mirror.backends.directory.mirror_marker.FORMAT",
        "pipeline.model.evidence.EVIDENCE_SCHEMA",
        "pipeline.model.night_record.NIGHT_FORMAT",
        "pipeline.model.report_form.REPORT_SCHEMA",
        "pipeline.nightly.no_change.FORMAT",
        "pipeline.transfer.question_log.FORMAT",
        "pipeline.nightly.inputs_record.FORMAT",
        "pipeline.oci.bill_json.FORMAT",
        "pipeline.oci.record_json.FORMAT",
        "pipeline.resolve.lockfile.LOCK_FORMAT",
        "pipeline.site.site_history.HISTORY_FORMAT",
        "pipeline.site.site_history.STATE_FORMAT",
        "pipeline.site.site_writer.PAGE_FORMAT",
        "pipeline.store.authenticated_values.FORMAT",
    }
)
"""Documents that outlive a release, and what the store's are wrapped in: read by their version, so a raised one makes
no image again. No code compares them, so their numbers are not read here."""
