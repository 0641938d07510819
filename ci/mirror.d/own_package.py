"""Makes the RPM of relbuild from a folder with its files, and its repository. ``ci/own-rpm`` calls it."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from make import write_whole
from repository import assemble, put_in_place
from rpmbuild import OWN_TIME, Build, BuildFailed, PackageCache, Work, identity
from signing import SigningFailed, signer

_REQUIRES = (
    "bash", "ca-certificates", "coreutils", "e2fsprogs", "gnupg2", "libarchive", "libgcc", "libstdc++", "python3",
    "python3-rpm", "rpm", "runc", "shadow-utils-subid", "util-linux",
)  # fmt: skip
"""What relbuild calls or loads: docs/decisions/0049."""

_SPEC = """\
Name: relbuild
Version: {version}
Release: 1.local1
Summary: Container images from YAML recipes and RPM repositories, published only if they passed their tests
License: Apache-2.0
URL: https://relbuild.invalid/
AutoReqProv: no
{requires}
%description
relbuild with the Python libraries that it needs, for Python 3.13.

%install
cp -a %{{mirror_payload}}/. %{{buildroot}}/
mkdir -p %{{buildroot}}/usr/bin
printf '%s\\n' '#!/usr/bin/python3' 'import sys' 'sys.path.insert(0, "/usr/lib/relbuild")' \\
  'from pipeline.cli import main' 'sys.exit(main())' > %{{buildroot}}/usr/bin/relbuild
chmod 0755 %{{buildroot}}/usr/bin/relbuild
find %{{buildroot}} -exec touch --no-dereference --date=@{time} {{}} +

# Compiled where it is installed, and the same wherever that is: by content, and not by time.
%post
/usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/relbuild >/dev/null

%files
%attr(0755, root, root) /usr/bin/relbuild
%defattr(-, root, root)
/usr/lib/relbuild

%changelog
* Thu Jan 01 2026 relbuild development mirror <mirror@relbuild.invalid> - {version}-1.local1
- Made from a checkout
"""


def make(output: Path, tree: Path, stamp: str) -> None:
    """Build and sign the package, and put its repository into the mirror ``output``."""
    wheel = next(tree.glob("usr/lib/relbuild/relbuild-*.dist-info"))
    version = re.fullmatch(r"relbuild-(.+)\.dist-info", wheel.name)
    assert version is not None
    spec = _SPEC.format(
        version=version[1], requires="\n".join(f"Requires: {name}" for name in _REQUIRES), time=OWN_TIME
    )
    private = output / ".private" / "own"
    private.mkdir(exist_ok=True, mode=0o700)
    with signer(output / ".private" / "key", "relbuild development mirror") as key:
        cache = PackageCache(private, tree)
        cache.keep_only(set())
        packages = cache.make(identity(spec, stamp), _filled(tree, spec), key.sign_packages)
        binary = [package for package in packages if not package.name.endswith(".src.rpm")]
        staging = private / "repository"
        shutil.rmtree(staging, ignore_errors=True)
        assemble(staging, binary, "zstd", {}, key)
    write_whole(staging / ".stamp", stamp)
    put_in_place(staging, output / "relbuild")


def _filled(tree: Path, spec: str) -> Callable[[Work], Build]:
    """Return what fills a build's payload with ``tree``."""

    def fill(work: Work) -> Build:
        shutil.copytree(tree, work.payload, symlinks=True, dirs_exist_ok=True)
        return Build("relbuild", spec, OWN_TIME)

    return fill


def main() -> int:
    """Parse the arguments that ``ci/own-rpm`` hands on, and report errors in words."""
    parser = argparse.ArgumentParser(prog="ci/own-rpm")
    for name in ("--output", "--tree"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--stamp", required=True)
    given = parser.parse_args()
    try:
        make(given.output.resolve(), given.tree, given.stamp)
    except (BuildFailed, SigningFailed) as problem:
        print(f"ci/own-rpm: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
