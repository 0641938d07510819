"""A Kerberos realm on loopback: MIT's key server, and Apache with mod_auth_gssapi over TLS, from `ci/kerberos`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.authority import Authority
from tests.support.foreign_programs import ROOT, reserved_port, served
from tests.support.patience import HUNG

_KRB5 = """[libdefaults]
 default_realm = TEST.INVALID
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
[realms]
 TEST.INVALID = {{
  kdc = 127.0.0.1:{port}
 }}
[domain_realm]
 localhost = TEST.INVALID
[dbmodules]
 db_module_dir = {programs}/usr/lib/{machine}-linux-gnu/krb5/plugins/kdb
[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
"""
_KDC = "[realms]\n TEST.INVALID = {{\n  database_name = {folder}/principal\n  key_stash_file = {folder}/stash\n }}\n"
_APACHE = """ServerRoot {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
Mutex pthread
ServerName localhost
Listen 127.0.0.1:{port}
{modules}
User nobody
Group nogroup
DocumentRoot {served}
SSLEngine on
SSLCertificateFile {certificate}
SSLCertificateKeyFile {key}
<Directory {served}>
AuthType GSSAPI
AuthName test
GssapiCredStore keytab:{folder}/http.keytab
Require user me@TEST.INVALID
</Directory>
"""
_MODULES = ("mpm_event", "authn_core", "authz_core", "authz_user", "ssl", "auth_gssapi")


@dataclass(frozen=True, slots=True)
class Realm:
    """`url`: where the folder is served to `me`. `me`, `stranger`: key tables of users. `environment`: of a client."""

    folder: Path
    url: str
    me: Path
    stranger: Path
    environment: dict[str, str]


@contextlib.contextmanager
def kerberos_realm(content: Path, authority: Authority) -> Iterator[Realm]:
    """Serve `content`, which everybody may read, to the user `me` of a realm of its own."""
    done = subprocess.run([ROOT / "ci" / "kerberos"], check=True, capture_output=True, text=True)
    programs, machine = Path(done.stdout.strip()), os.uname().machine
    with tempfile.TemporaryDirectory(prefix="realm-") as name, reserved_port() as kdc, reserved_port() as web:
        folder = Path(name)
        folder.chmod(0o755)  # for Apache's processes, which are nobody's
        (folder / "krb5.conf").write_text(_KRB5.format(port=kdc, programs=programs, machine=machine))
        (folder / "kdc.conf").write_text(_KDC.format(folder=folder))
        served_at = folder / "served"
        shutil.copytree(content, served_at)
        libraries = {"LD_LIBRARY_PATH": f"{programs}/usr/lib/{machine}-linux-gnu"}
        python = (str(ROOT), f"{programs}/python", f"{programs}/usr/lib/python3/dist-packages")
        client = {"KRB5_CONFIG": f"{folder}/krb5.conf", "PYTHONPATH": ":".join(python)}
        server = {**libraries, "KRB5_CONFIG": f"{folder}/krb5.conf", "KRB5_KDC_PROFILE": f"{folder}/kdc.conf"}

        def run(*words: str) -> None:
            subprocess.run(words, env={**os.environ, **server}, check=True, capture_output=True, timeout=HUNG)

        sbin = programs / "usr/sbin"
        run(f"{sbin}/kdb5_util", "-r", "TEST.INVALID", "create", "-s", "-P", "of a test", "-W")
        tables = {"me": folder / "me.keytab", "stranger": folder / "stranger.keytab"}
        tables["HTTP/localhost"] = folder / "http.keytab"
        for principal, table in tables.items():
            run(f"{sbin}/kadmin.local", "-q", f"addprinc -randkey {principal}")
            run(f"{sbin}/kadmin.local", "-q", f"ktadd -k {table} {principal}")
        (folder / "http.keytab").chmod(0o644)
        certificate, key = authority.issue("web")
        modules = "\n".join(
            f"LoadModule {one}_module {programs}/usr/lib/apache2/modules/mod_{one}.so" for one in _MODULES
        )
        (folder / "apache.conf").write_text(
            _APACHE.format(folder=folder, port=web, modules=modules, served=served_at, certificate=certificate, key=key)
        )
        apache = [f"{sbin}/apache2", "-f", str(folder / "apache.conf"), "-DFOREGROUND"]
        with (
            served([f"{sbin}/krb5kdc", "-n"], kdc, folder / "kdc.out", server),
            served(list(apache), web, folder / "apache.out", server),
        ):
            yield Realm(folder, f"https://localhost:{web}", tables["me"], tables["stranger"], client)
