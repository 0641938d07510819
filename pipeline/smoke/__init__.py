"""Asking an image, while it runs, whether it is what it should be.

Every instance is asked first whether it is ready and then everything else in order, from outside, each
question with a deadline. The answers are a report; an image that fails is no error but a report that says so.
"""

from pipeline.model.plan_form import plan_digest
from pipeline.model.report_form import read_report, report_json
from pipeline.smoke.junit import junit
from pipeline.smoke.record import draft_checks
from pipeline.smoke.report import report_lines
from pipeline.smoke.run import Holding, smoke

__all__ = [
    "Holding",
    "draft_checks",
    "junit",
    "plan_digest",
    "read_report",
    "report_json",
    "report_lines",
    "smoke",
]
