"""Tables of all format versions, by what a raised one causes: rebuild, retest or nothing.

A test finds all constants of the code that are formats, schemas and versions, and demands that each is in one of these
tables. The running code itself is identified by `relbuild_digest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pipeline
from pipeline import launch
from pipeline.build import remembered_build
from pipeline.layers import layer, segments, state_layer
from pipeline.mirror.backends.directory import directory_mirror
from pipeline.model import (
    evidence,
    night_record,
    plan_form,
    report_form,
)
from pipeline.nightly import inputs_record, no_change
from pipeline.oci import bill_json
from pipeline.oci import record_json as materials
from pipeline.packages import lua
from pipeline.render import templates as rendering
from pipeline.resolve import lockfile, solv_cache
from pipeline.site import site_history, site_writer
from pipeline.store import authenticated_values
from pipeline.transfer import question_log

IMAGE_FORMATS: Mapping[str, int] = MappingProxyType(
    {
        "pipeline.FORMAT": pipeline.FORMAT,
        "pipeline.launch.CONTENTS_FORMAT": launch.CONTENTS_FORMAT,
        "pipeline.layers.layer.FORMAT": layer.FORMAT,
        "pipeline.layers.segments.FORMAT": segments.FORMAT,
        "pipeline.layers.state_layer.FORMAT": state_layer.FORMAT,
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

DOCUMENT_FORMATS: Mapping[str, int] = MappingProxyType(
    {
        "pipeline.build.remembered_build.FORMAT": remembered_build.FORMAT,
        "pipeline.mirror.backends.directory.directory_mirror.FORMAT": directory_mirror.FORMAT,
        "pipeline.model.evidence.EVIDENCE_SCHEMA": evidence.EVIDENCE_SCHEMA,
        "pipeline.model.night_record.NIGHT_FORMAT": night_record.NIGHT_FORMAT,
        "pipeline.model.report_form.REPORT_SCHEMA": report_form.REPORT_SCHEMA,
        "pipeline.nightly.no_change.FORMAT": no_change.FORMAT,
        "pipeline.transfer.question_log.FORMAT": question_log.FORMAT,
        "pipeline.nightly.inputs_record.FORMAT": inputs_record.FORMAT,
        "pipeline.oci.bill_json.FORMAT": bill_json.FORMAT,
        "pipeline.oci.record_json.FORMAT": materials.FORMAT,
        "pipeline.resolve.lockfile.LOCK_FORMAT": lockfile.LOCK_FORMAT,
        "pipeline.site.site_history.HISTORY_FORMAT": site_history.HISTORY_FORMAT,
        "pipeline.site.site_history.STATE_FORMAT": site_history.STATE_FORMAT,
        "pipeline.site.site_writer.PAGE_FORMAT": site_writer.PAGE_FORMAT,
        "pipeline.store.authenticated_values.FORMAT": authenticated_values.FORMAT,
    }
)
"""Documents that outlive a release, and what the store's are wrapped in: read by their version, so a raised one makes
no image again."""
