"""Smoke tests: checks asked of an image while it runs, and their report.

Every instance is asked first whether it is ready and then everything else in order, from outside, each
question with a deadline. The answers are a report; an image that fails is no error but a report that says so.
"""

from pipeline.model.plan_form import plan_digest
from pipeline.model.report_form import read_report, report_json
from pipeline.smoke.check_drafts import draft_checks
from pipeline.smoke.junit import junit_report
from pipeline.smoke.report_text import report_lines
from pipeline.smoke.run import FailureHold, smoke

__all__ = [
    "FailureHold",
    "draft_checks",
    "junit_report",
    "plan_digest",
    "read_report",
    "report_json",
    "report_lines",
    "smoke",
]
