"""Web servers that serve a directory mirror, with the configuration that the mirror brings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.mirror.backends.directory.server_files import nginx_configuration
from tests.support.foreign_programs import program, reserved_port, served


@contextlib.contextmanager
def nginx(mirror: Path, folder: Path) -> Iterator[str]:
    """nginx over the mirror's directory; yields `127.0.0.1:PORT`. Errors that it logs are in `folder/error.log`."""
    with reserved_port() as port:
        yield from _nginx(mirror, folder, port)


def _nginx(mirror: Path, folder: Path, port: int) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    site = folder / "site.conf"
    site.write_text(nginx_configuration(mirror, f"127.0.0.1:{port}"))
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""user root;
worker_processes 2;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    {temporary}
    include {site};
}}
"""
    )
    with served([program("nginx"), "-e", folder / "error.log", "-p", folder, "-c", config], port, folder / "output"):
        yield f"127.0.0.1:{port}"
