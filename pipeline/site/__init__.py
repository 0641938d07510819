"""The morning page: a static site of what a night over a catalogue came to, with a feed and files for other programs.

`write_site` makes it from a `Night` and from what the site itself remembers of the nights before. Pages run no script
and load nothing from elsewhere. What did not change is not made again.
"""

from pipeline.site.feed import atom_xml
from pipeline.site.junit import junit_xml
from pipeline.site.markdown import summary_markdown
from pipeline.site.writing import refuse_newer_site, write_site

__all__ = ["atom_xml", "junit_xml", "refuse_newer_site", "summary_markdown", "write_site"]
