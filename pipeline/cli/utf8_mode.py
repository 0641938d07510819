"""Run in Python's UTF-8 mode, whatever the locale says.

In a locale with another encoding, such as `tr_TR.ISO-8859-9`, Python would read recipes and write names of an image's
files in that. Imports nothing that takes time: it is imported before all others.
"""

import os
import sys


def use_utf8() -> None:
    """Start the process again in UTF-8 mode if Python's encoding of file names is another.

    Arguments keep their bytes. Called once, first of all, by the process's entry point alone.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"  # For interpreters that this one starts, too. With -I only the option counts.
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
