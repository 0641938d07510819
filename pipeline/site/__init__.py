"""The static site of a nightly run: pages, a feed, and files for other programs.

It is the morning page: what a night over a catalogue came to.

`write_site` makes it from a `NightlyRun` and from what the site itself remembers of the nights before. Pages run no
script and load nothing from elsewhere. What did not change is not made again.
"""

from pipeline.site.feed import atom_xml
from pipeline.site.markdown import summary_markdown
from pipeline.site.night_junit import junit_xml
from pipeline.site.site_writer import refuse_newer_site, write_site

__all__ = ["atom_xml", "junit_xml", "refuse_newer_site", "summary_markdown", "write_site"]
