"""Files beside a directory mirror's content by which other programs serve and copy it.

They are the web server's configuration and the script for rsync, made from the files beside this one.

Of a tag, a web server must tell media type, digest and bytes that belong together while the tag moves. Tried and left:
a generated map from tags to digests, which the server reads at other times than the link; a header from one look at
the link and the bytes from another. What holds: the link is followed once, to a path that says digest and kind, and
that path is served (`nginx.conf`).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pipeline.errors import UsageError

LISTEN = "127.0.0.1:8080"
"""Where a web server listens that nobody has told otherwise."""


def nginx_configuration(root: Path, listen: str = LISTEN) -> str:
    """Return a server for nginx's `http` section that serves the mirror at `root`.

    Raises UsageError `mirror-path` for a path that cannot be written into it.
    """
    text = str(root)
    if any(not char.isprintable() or char in "\"'\\$;{}" for char in text):
        raise UsageError(
            "mirror-path",
            f"nginx cannot serve the path '{text}'",
            place=text,
            hint="""use a path without " ' \\ $ ; { }""",
        )
    return _text("nginx.conf").replace("/srv/mirror", text).replace(f"listen {LISTEN};", f"listen {listen};")


def rsync_script() -> str:
    """A shell script that copies a mirror, also while it is published to."""
    return _text("rsync.sh")


def _text(name: str) -> str:
    return files("pipeline.mirror.backends.directory").joinpath(name).read_text(encoding="utf-8")
