"""An entitled machine: its redhat.repo as it stands, against nginx that demands client certificates, through a proxy
with a password. What is secret is in nothing that comes of it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import RelbuildError
from pipeline.model.platform import PackageRepository, Platform, RepositoryAccess
from pipeline.recipes import load_platforms
from pipeline.repos import open_repositories
from pipeline.store import Store
from tests.support.authority import DAY, Authority
from tests.support.foreign_programs import program, reserved_port, served
from tests.support.tunnel_proxy import TunnelProxy, tunnel_proxy
from tests.system.conftest import ROOT

HOST = "cdn.redhat.com"
PASSWORD = "pA55w0rd-canary"

SECTION = """
[rhel-9-for-x86_64-{id}-rpms]
name = Red Hat Enterprise Linux 9 for x86_64 - {id} (RPMs)
baseurl = https://cdn.redhat.com/content/dist/rhel9/$releasever/x86_64/{id}/os
enabled = {enabled}
gpgcheck = 1
gpgkey = file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release
sslverify = 1
sslcacert = /etc/rhsm/ca/redhat-uep.pem
sslclientkey = /etc/pki/entitlement/5527980418107729172-key.pem
sslclientcert = /etc/pki/entitlement/5527980418107729172.pem
sslverifystatus = 1
metadata_expire = 86400
enabled_metadata = {enabled}
ui_repoid_vars = releasever
arches = x86_64
"""
"""As subscription-manager writes it (src/subscription_manager/repofile.py, and an entitlement's content)."""

DEFINITIONS = """
platforms:
  rhel-9:
    variables: {{releasever: "9"}}
    repositories:
      - file: redhat.repo
        keys: ["{mirror}/RPM-GPG-KEY-local"]
        sslcacert: {folder}/uep.crt
        sslclientcert: {folder}/entitlement/*.pem
"""
RECIPE = """
name: entitled
version: '1'
platform: rhel-9
architectures: [x86_64]
layers: [{name: base, packages: [bash]}]
image: {entrypoint: [/usr/bin/bash]}
"""


class Site:
    """A folder of definitions, the authority, and the server behind the proxy."""

    def __init__(self, folder: Path, mirror: Path) -> None:
        self.folder = folder
        self.uep = Authority(folder, "uep")
        self.server = self.uep.issue(HOST, host=HOST)
        enabled = [SECTION.format(id=name, enabled=1) for name in ("baseos", "appstream")]
        repo = "#\n# Certificate-Based Repositories\n# Managed by (rhsm) subscription-manager\n#\n"
        (folder / "redhat.repo").write_text(repo + "".join(enabled) + SECTION.format(id="other", enabled=0))
        (folder / "repositories.yaml").write_text(DEFINITIONS.format(mirror=mirror, folder=folder))
        (folder / "entitled.yaml").write_text(RECIPE)
        content = folder / "content/dist/rhel9/9/x86_64"
        for name, of in (("baseos", "base"), ("appstream", "updates")):
            (content / name).mkdir(parents=True)
            (content / name / "os").symlink_to(mirror / of)

    def proxy_url(self, proxy: TunnelProxy) -> str:
        return proxy.url.replace("://", f"://me:{PASSWORD}@")


@contextlib.contextmanager
def nginx(site: Site) -> Iterator[int]:
    """nginx with mTLS over the site's content."""
    with reserved_port() as port:
        yield from _nginx(site, port)


def _nginx(site: Site, port: int) -> Iterator[int]:
    folder = site.folder / "nginx"
    folder.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"""user root; worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log notice;
events {{ worker_connections 64; }}
http {{ access_log off; {temporary}
  server {{ listen 127.0.0.1:{port} ssl; server_name {HOST}; root {site.folder};
    ssl_certificate {site.server[0]}; ssl_certificate_key {site.server[1]};
    ssl_client_certificate {site.uep.certificate}; ssl_verify_client on; }} }}
"""
    )
    argv = [program("nginx"), "-e", folder / "error.log", "-p", folder, "-c", folder / "nginx.conf"]
    with served(argv, port, folder / "output"):
        yield port


@pytest.fixture
def site(tmp_path: Path, mirror: Path) -> Site:
    return Site(tmp_path / "recipes", mirror)


@pytest.fixture
def proxy(site: Site) -> Iterator[TunnelProxy]:
    with nginx(site) as port, tunnel_proxy(port, f"me:{PASSWORD}") as running:
        yield running


def argument_lists(until: threading.Event, seen: set[bytes]) -> None:
    """Collect the arguments of all processes of the machine."""
    while not until.wait(0.02):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(path.read_bytes())


def test_an_image_is_built_from_an_unmodified_redhat_repo_and_holds_no_secret(
    site: Site, proxy: TunnelProxy, tmp_path: Path, mirror: Path
) -> None:
    etc, work = tmp_path / "etc", tmp_path / "work"
    work.mkdir()
    for folder in ("rhsm/ca", "yum.repos.d", "pki/rpm-gpg"):
        (etc / folder).mkdir(parents=True)
    shutil.copy(site.uep.certificate, etc / "rhsm/ca/redhat-uep.pem")
    shutil.copy(site.folder / "redhat.repo", etc / "yum.repos.d/redhat.repo")
    shutil.copy(mirror / "RPM-GPG-KEY-local", etc / "pki/rpm-gpg/RPM-GPG-KEY-redhat-release")
    _, key = site.uep.issue("5527980418107729172", folder=etc / "pki/entitlement")
    shutil.copy(ROOT / "recipes/repositories.yaml", site.folder / "repositories.yaml")  # the platform as it is shipped
    # A mount namespace of its own, in which /etc is an entitled machine's.
    machine = f"mount -t overlay overlay -o lowerdir=/etc,upperdir={etc},workdir={work} /etc"
    entitled = ["unshare", "-m", "sh", "-ec", f'{machine}; exec "$@"', "sh"]
    canaries = [PASSWORD.encode(), key.read_bytes().splitlines()[1]]
    output, store, seen, done = tmp_path / "output", tmp_path / "store", set[bytes](), threading.Event()
    watching = threading.Thread(target=argument_lists, args=(done, seen))
    watching.start()
    argv = [sys.executable, "-m", "pipeline", "build", str(site.folder / "entitled.yaml"), "--no-smoke"]
    argv += ["--platform", "rhel-9-registered"]
    ended = subprocess.run(
        [*entitled, *argv, "--store", str(store), "--output", str(output), "--json", "--progress", "plain"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "https_proxy": site.proxy_url(proxy)},
    )
    done.set()
    watching.join()
    assert ended.returncode == 0, ended.stderr.decode()
    assert set(proxy.asked) == {f"{HOST}:443"}
    lock = (site.folder / "entitled.lock").read_bytes()
    assert b"rhel-9-for-x86_64-baseos-rpms" in lock
    texts = [ended.stdout, ended.stderr, lock, *seen]
    for path in (one for folder in (output, store) for one in folder.rglob("*") if one.is_file()):
        texts.append(path.read_bytes())
        with contextlib.suppress(OSError, EOFError):
            texts.append(gzip.decompress(texts[-1]))
    assert len(texts) > 50 and json.loads(ended.stdout)
    assert [text[:200] for text in texts for canary in canaries if canary in text] == []


def test_missing_wrong_expired_and_refused_certificates_are_four_errors(
    site: Site, proxy: TunnelProxy, tmp_path: Path
) -> None:
    store = Store.open(tmp_path / "store")
    environment = {"https_proxy": site.proxy_url(proxy), "HOME": "/nowhere"}

    def code(platform: Platform, variables: dict[str, str] = environment) -> tuple[str, str]:
        with pytest.raises(RelbuildError) as caught:
            open_repositories(platform, "x86_64", variables=variables, store=store, clock=time.time)
        assert PASSWORD not in f"{caught.value!r}{caught.value}"
        return caught.value.code, str(caught.value)

    def entitled() -> Platform:
        return load_platforms(site.folder / "repositories.yaml").find("rhel-9")

    url = f"https://{HOST}/content/dist/rhel9/9/x86_64/baseos/os"
    key = f"{mirror_of(site)}/RPM-GPG-KEY-local"
    without = RepositoryAccess(sslcacert=str(site.uep.certificate))
    plain = Platform("p", (PackageRepository("r", baseurls=(url,), keys=(key,), access=without),))
    assert code(entitled())[0] == "client-certificate-missing"
    found, text = code(plain)
    assert (found, "No required SSL certificate was sent" in text) == ("client-certificate-demanded", True)
    site.uep.issue("old", folder=site.folder / "entitlement", begins=-9 * DAY, ends=-DAY)
    assert code(entitled())[0] == "client-certificate-expired"
    Authority(tmp_path / "other", "other").issue("stranger", folder=site.folder / "entitlement")
    found, text = code(entitled())
    assert (found, "The SSL certificate error" in text) == ("client-certificate-refused", True)
    assert code(entitled(), {**environment, "https_proxy": proxy.url})[0] == "proxy-refused"
    site.uep.issue("good", folder=site.folder / "entitlement", begins=-DAY / 2)
    assert len(open_repositories(entitled(), "x86_64", variables=environment, store=store, clock=time.time)) == 2


def mirror_of(site: Site) -> str:
    """The folder of the mirror, where its key is."""
    return str((site.folder / "content/dist/rhel9/9/x86_64/baseos/os").resolve().parent)
