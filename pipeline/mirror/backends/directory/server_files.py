"""Make the text of a directory mirror's nginx.conf and rsync.sh from templates.

For a tag, the web server must send media type, digest and bytes that belong together even while the tag moves. Tried
and rejected: a generated map from tags to digests, which the server reads at other times than the link; a header from
one reading of the link and the bytes from another. The configuration resolves the link once, to a path with digest and
kind, and serves that path (`nginx.conf`).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.mirror.backends.directory.manifest_files import read_regular
from pipeline.progress import Progress

LISTEN = "127.0.0.1:8080"
"""Default address and port of the web server."""


def nginx_configuration(root: Path, listen: str = LISTEN) -> str:
    """Return a `server` block for nginx's `http` section that serves the mirror at `root`.

    Raises UsageError `mirror-path` for a path that cannot be quoted in it.
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


def warn_of_links(root: Path, progress: Progress) -> None:
    """Warn of an `nginx.conf` that lets nginx follow symlinks.

    A mirror keeps the file with which it was made, which its operator may have changed.
    """
    path = root / "nginx.conf"
    read = read_regular(path)
    if read is not None and b"disable_symlinks" not in read[0]:
        progress.warn(f"{path} is from an older relbuild and lets nginx follow symlinks: see `relbuild help mirrors`")


def rsync_script() -> str:
    """Return a shell script that copies a mirror with rsync, also while it is published to."""
    return _text("rsync.sh")


def _text(name: str) -> str:
    return files("pipeline.mirror.backends.directory").joinpath(name).read_text(encoding="utf-8")
