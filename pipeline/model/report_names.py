"""Names of an image's report: of its folder beside the layout, and of its document."""

from __future__ import annotations

REPORT_SUFFIX = ".report"
"""The ending of a report folder's name, after the layout's; no product's name has it."""

REPORT_FILE = "report.json"
"""The document that each build writes into a report's folder."""
