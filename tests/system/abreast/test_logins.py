"""The whole program at repositories that want a token, a login of netrc, a Kerberos ticket: it logs in, and what is
secret is in nothing that comes of it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.guarded_server import guarded_server
from tests.support.kerberos_realm import kerberos_realm
from tests.support.product_builds import signed_repository
from tests.support.rpm_factory import Forge
from tests.system.conftest import ROOT

SECRET = "pA55w0rd-canary"

DEFINITIONS = """
platforms:
  small:
    architectures: [x86_64]
    repositories:
      - {id: small, baseurls: ["%(url)s"], keys: ["%(folder)s/key"], %(login)s}
"""
RECIPE = """
name: small
version: '1'
platform: small
architectures: [x86_64]
layers: [{name: base, packages: [small]}]
image: {entrypoint: [/usr/share/small]}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A signed repository of one package in `folder`/repository, and the authority of its server."""

    folder: Path
    authority: Authority

    def build(self, url: str, login: str, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        """Run relbuild with these definitions, in a store and an output folder of its own."""
        words = {"url": url, "folder": self.folder, "login": login}
        (self.folder / "repositories.yaml").write_text(DEFINITIONS % words)
        (self.folder / "small.yaml").write_text(RECIPE)
        (self.folder / "small.lock").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "pipeline", "build", str(self.folder / "small.yaml"), "--no-smoke", "--json"]
        argv += ["--store", str(self.folder / "store"), "--output", str(self.folder / "output"), "--progress", "plain"]
        trust = {"SSL_CERT_FILE": str(self.authority.certificate)}
        env = {"PYTHONPATH": str(ROOT), **os.environ, **trust, **environment}
        return subprocess.run(argv, capture_output=True, check=False, env=env)

    def written(self, done: subprocess.CompletedProcess[bytes]) -> list[bytes]:
        """All that came of a build: what it printed, lock, store, image, reports, also decompressed."""
        texts = [done.stdout, done.stderr, (self.folder / "small.lock").read_bytes()]
        for path in (one for name in ("output", "store") for one in (self.folder / name).rglob("*") if one.is_file()):
            texts.append(path.read_bytes())
            with contextlib.suppress(OSError, EOFError):
                texts.append(gzip.decompress(texts[-1]))
        assert len(texts) > 20
        return texts


@pytest.fixture
def site(made: Forge, tmp_path: Path) -> Site:
    package = made.package("small", install="mkdir -p usr/share; echo 1 >usr/share/small", files=["/usr/share/small"])
    signed_repository(tmp_path, made.key, package)
    return Site(tmp_path, Authority(tmp_path / "authority", "good"))


@pytest.mark.parametrize("kind", ["token", "netrc"])
def test_an_image_is_built_with_a_login_and_holds_no_secret(site: Site, kind: str) -> None:
    (site.folder / "netrc").write_text(f"machine localhost login me password {SECRET}\n")
    login, asked, environment = {
        "token": ("token: {environment: RELBUILD_SECRET_T}", f"Bearer {SECRET}", {"RELBUILD_SECRET_T": SECRET}),
        "netrc": ("netrc: true", "", {"NETRC": str(site.folder / "netrc")}),
    }[kind]
    basic = "" if asked else f"me:{SECRET}"
    certificate = site.authority.issue("server")
    repository = site.folder / "repository"
    with guarded_server(repository, certificate=certificate, login=basic, authorization=asked) as server:
        done = site.build(server.url, login, environment)
    assert done.returncode == 0, done.stderr.decode()
    (sent,) = {headers["Authorization"] for headers in server.headers.values()}
    canaries = [SECRET.encode(), sent.split()[1].encode()]
    assert [text[:200] for text in site.written(done) for one in canaries if one in text] == []


def test_a_ticket_logs_in_at_apache_and_no_other_does(site: Site) -> None:
    with kerberos_realm(site.folder / "repository", site.authority) as realm:
        environments = {
            name: {**realm.environment, "KRB5CCNAME": f"FILE:{realm.folder}/{name}", "KRB5_CLIENT_KTNAME": str(table)}
            for name, table in (("me", realm.me), ("stranger", realm.stranger), ("nobody", realm.folder / "none"))
        }
        done = site.build(realm.url, "negotiate: true", environments["me"])
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout)
        key = realm.me.read_bytes()[-16:]
        tickets = (realm.folder / "me").read_bytes()
        assert len(tickets) > 500
        canaries = [key, tickets[-300:-200], b"Negotiate "]
        assert [text[:200] for text in site.written(done) for one in canaries if one in text] == []
        for who, login, code in (
            ("nobody", "negotiate: true", "kerberos-failed"),
            ("stranger", "negotiate: true", "credentials-refused"),
            ("me", "netrc: false", "credentials-demanded"),
        ):
            refused = site.build(realm.url, login, environments[who])
            assert (refused.returncode, code in refused.stdout.decode()) == (8, True), refused.stderr.decode()
