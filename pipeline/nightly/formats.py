"""Every format of relbuild's own, by what a raised one means for a night.

A test finds all constants of the code that are formats, schemas and versions, and demands that each stands in one of
these tables. Which relbuild did a night, whatever its formats, is told by `own_code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pipeline
from pipeline import launch
from pipeline.layers import layer, segments, state
from pipeline.mirror.backends.directory import directory_mirror
from pipeline.model import evidence, night, plan_form, report_form
from pipeline.nightly import quiet, record
from pipeline.oci import bill
from pipeline.oci import record as materials
from pipeline.packages import lua
from pipeline.render import templates as rendering
from pipeline.resolve import lockfile, parsed
from pipeline.site import history, writing
from pipeline.store import envelopes

IMAGE: Mapping[str, int] = MappingProxyType(
    {
        "pipeline.FORMAT": pipeline.FORMAT,
        "pipeline.launch.CONTENTS_FORMAT": launch.CONTENTS_FORMAT,
        "pipeline.layers.layer.FORMAT": layer.FORMAT,
        "pipeline.layers.segments.FORMAT": segments.FORMAT,
        "pipeline.layers.state.FORMAT": state.FORMAT,
        "pipeline.packages.lua._FORMAT": lua._FORMAT,
        "pipeline.render.templates.FORMAT": rendering.FORMAT,
        "pipeline.resolve.parsed._FORMAT": parsed._FORMAT,
    }
)
"""Formats that an image's bytes, or what is said to be in it, depend on.
If one is another, the image is built again."""

TEST: Mapping[str, int] = MappingProxyType(
    {
        "pipeline.launch.FORMAT": launch.FORMAT,
        "pipeline.model.plan_form._PLAN_VERSION": plan_form._PLAN_VERSION,
    }
)
"""Formats that a verdict depends on: if one is another, the image is tested again."""

DOCUMENTS: Mapping[str, int] = MappingProxyType(
    {
        "pipeline.mirror.backends.directory.directory_mirror.FORMAT": directory_mirror.FORMAT,
        "pipeline.model.evidence.EVIDENCE_SCHEMA": evidence.EVIDENCE_SCHEMA,
        "pipeline.model.night.NIGHT_FORMAT": night.NIGHT_FORMAT,
        "pipeline.model.report_form.REPORT_SCHEMA": report_form.REPORT_SCHEMA,
        "pipeline.nightly.quiet.FORMAT": quiet.FORMAT,
        "pipeline.nightly.record.FORMAT": record.FORMAT,
        "pipeline.oci.bill.FORMAT": bill.FORMAT,
        "pipeline.oci.record.FORMAT": materials.FORMAT,
        "pipeline.resolve.lockfile.LOCK_FORMAT": lockfile.LOCK_FORMAT,
        "pipeline.site.history.HISTORY_FORMAT": history.HISTORY_FORMAT,
        "pipeline.site.history.STATE_FORMAT": history.STATE_FORMAT,
        "pipeline.site.writing.PAGE_FORMAT": writing.PAGE_FORMAT,
        "pipeline.store.envelopes.FORMAT": envelopes.FORMAT,
    }
)
"""Documents that outlive a release, and what the store's are wrapped in: read by their version, so a raised one makes
no image again."""
