"""Smoke tests: launch instances of an image, run its checks, report the results.

Every instance is asked the readiness check first and then the other checks in order, from outside, each with a
deadline. An image that fails is not an error: its report says so.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.model.plan_form import plan_digest
    from pipeline.model.report_form import read_report, report_json
    from pipeline.smoke.check_drafts import draft_checks
    from pipeline.smoke.junit import junit_report, junit_reports
    from pipeline.smoke.loopback_ports import loopback_warnings, warn_of_loopback
    from pipeline.smoke.report_text import report_lines
    from pipeline.smoke.run import FailureHold, smoke
    from pipeline.smoke.shared_failures import failures_json

__all__ = [
    "FailureHold",
    "draft_checks",
    "failures_json",
    "junit_report",
    "junit_reports",
    "loopback_warnings",
    "plan_digest",
    "read_report",
    "report_json",
    "report_lines",
    "smoke",
    "warn_of_loopback",
]
