"""The static site of nightly runs: HTML pages, Atom feed, JSON, JUnit XML, Markdown.

`write_site` makes it from a `NightlyRun` and the history that the site keeps. Pages run no scripts and load nothing
from elsewhere. Unchanged pages are not made again.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.site.feed import atom_xml
    from pipeline.site.markdown import summary_markdown
    from pipeline.site.night_junit import junit_xml
    from pipeline.site.night_path import path_lines
    from pipeline.site.site_writer import refuse_newer_site, require_site_folder, write_site

__all__ = [
    "atom_xml",
    "junit_xml",
    "path_lines",
    "refuse_newer_site",
    "require_site_folder",
    "summary_markdown",
    "write_site",
]
