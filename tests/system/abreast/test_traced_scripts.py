"""The same scripts in a container and traced: their output, status, changes and layer are the same.

Root runs both here. `test_without_privileges.py` builds whole images as somebody who may nothing.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.compression import Compression
from pipeline.layers import layer_entries
from pipeline.layers.change_tracker import ChangeTracker
from pipeline.layers.state_layer import UNREPRODUCIBLE_PATHS
from pipeline.layers.state_session import open_state_session
from pipeline.model.change import Change
from pipeline.model.image import Layer
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.sandbox import SandboxRegistry, prepare_session
from tests.support.patience import HUNG

TIME = 1_700_000_000

OWNERS = r"""
umask; id; pwd; cat; cat /proc/sys/kernel/hostname
touch /etc/a; chown 27:28 /etc/a; chmod 4755 /etc/a; stat -c '%a %u %g %F %s' /etc/a
chown 5 /etc/a; stat -c '%a %u %g' /etc/a
mkdir -p /srv/x/y; chmod 2775 /srv/x; chown :50 /srv/x; touch /srv/x/f; mkdir /srv/x/d; stat -c '%n %a %u %g' /srv/x/?
mkfifo -m 640 /srv/pipe; mknod /srv/dev c 1 3; echo $?
ln -s /etc/a /srv/link; chown -h 9:9 /srv/link; stat -c '%u %g %N' /srv/link
ln /etc/a /srv/hard; stat -c %h /srv/hard; cp -a /etc/a /etc/c; mv /etc/a /etc/b
(umask 077; echo q > /etc/q; mkdir /etc/qd); stat -c %a /etc/q /etc/qd; mv /etc/q /etc/Q; rmdir /etc/qd
install -o 7 -g 8 -m 751 /bin/ls /srv/ls; install -d -m 1777 /srv/dd; mv /srv/dd /srv/ee; stat -c '%a %u %g' /srv/??
touch -d @5 /srv/1; touch -r /srv/1 /srv/2; touch -h -d @6 /srv/link; stat -c %Y /srv/1 /srv/2 /srv/link
"""

TREE = r"""
stat -c '%a %u %g' /etc/shadow /tmp /run /dev /dev/null; head -1 /etc/shadow
echo x > /dev/stdout; echo y > /dev/fd/1; cat < /dev/stdin; cat < /dev/null
readlink /proc/self/exe; readlink /proc/self/cwd; readlink /proc/self/root; ls /proc/self/fd | wc -l
exec 5</etc/passwd; readlink /proc/self/fd/5; head -1 /proc/self/fd/5
cd /usr/bin; pwd; cd ..; pwd -P; cd /bin; pwd -P; cd /lib/..; pwd -P; cd /
chmod u+s /usr/bin/ls; touch /usr/bin/cat; echo bad >> /usr/bin/head; truncate -s 3 /usr/bin/tail
rm /usr/bin/wc; mkdir /usr/bin/wc; touch /usr/bin/wc/x; mv /etc/skel /etc/other; rm -r /usr/share/licenses
ls /nonexistent; cat /etc/nothing; /etc/passwd; nosuch; uname -n
test -x /etc/passwd; echo $?; test -w /etc/shadow; echo $?; kill -0 $$; echo $?
for i in 1 2 3 4 5; do (echo $i > /srv/$i) & done; wait; cat /srv/?; diff <(echo a) <(echo b)
printf '#!/bin/bash -e\necho "$0" "$@"\n' > /srv/s; chmod +x /srv/s; /srv/s a 'b c'; cd /srv; ./s; PATH=/srv:$PATH s q
printf '#!/srv/s opt x\n' > /srv/t; chmod 755 /srv/t; /srv/t z
chroot / /bin/echo in; mkdir -p /srv/root; chroot /srv/root /bin/sh; echo $?
ldconfig; ldconfig -p | wc -l; timeout 5 sleep 0.01; trap 'echo term' TERM; kill -TERM $$; (sleep 100 &); exit 7
"""

ACCOUNTS = r"""
groupadd -g 200 gg; useradd -u 201 -g gg -m -d /home/u u; id u; stat -c '%n %a %u %g' /home/u
su -s /bin/sh u -c 'id -u; touch /home/u/f; touch /etc/nope; cat /etc/shadow; ls /root; umask'
stat -c '%u %g %a' /home/u/f
su -s /bin/sh u -c 'chown root /home/u/f; chmod 600 /home/u/f; echo hi > /home/u/f; mkdir ~/d; chmod 4777 ~/d'
usermod -c comment -s /bin/false u; passwd -l u; groupmod -n hh gg; gpasswd -a u root; echo $?
"""

EDGES = r"""
rmdir /run; rm -rf /tmp; mv /run /srv/run; mkdir /srv/m; mv -T /srv/m /tmp; ls -d /tmp /run
cd /srv; echo a > f; mkdir e; ln -s e link; mv f new/; ln -s x nl/; rmdir link/; rmdir e/.; mkdir link/; rm f/; ls
echo t > /tmp/t; ln /tmp/t t; mv /tmp/t t; cat t; mv t /dev/shm/t && cat /dev/shm/t
cp /bin/true su; chmod 4755 su; echo b >> su; chmod 4755 su; stat -c %a su
chmod 4755 su; echo b >> su; mv su su2; stat -c %a su2; chmod 6755 su2; echo b >> su2; ln su2 su3; stat -c %a su3
chmod 4755 su3; exec 5>>su3; stat -c %a su3; echo c >&5; stat -c %a su3; exec 5>&-
mkfifo q; (sleep 0.1; echo q > q) & sleep 0.02 & read x < q; echo $x; wait
cp -p /bin/true m1; cp -p /bin/false m2; touch -d @5 m1 m2; ./m1; echo $?; rm m1; cp -p m2 m1; ./m1; echo $?
"""


@pytest.fixture(scope="module")
def base(recipes: Path, build_env: BuildEnvironment, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """An image with a shell, the usual commands and those for accounts."""
    path = recipes / "traced.yaml"
    path.write_text(
        "name: traced\nversion: '1'\nplatform: local\narchitectures: [x86_64]\nlayers: [{name: base, "
        "packages: [setup, filesystem, glibc, bash, coreutils, shadow-utils, util-linux, hardcase-hardlinks], "
        "without: [docs, man]}]\n"
    )
    options = BuildOptions(path, recipes / "repositories.yaml", smoke=False, output=tmp_path_factory.mktemp("output"))
    return build(options, build_env)


Told = tuple[tuple[int, bytes, bytes], tuple[Change, ...], Layer]
"""Exit status, output and errors; changes to package content; the layer."""


@pytest.fixture
def run(
    base: BuildResult, build_env: BuildEnvironment, tmp_path: Path
) -> Callable[[SandboxRegistry | None, str], Told]:
    """Run a script after the base image's layers; return what came of it."""

    def act(sandboxes: SandboxRegistry | None, script: str) -> Told:
        folder = tmp_path / ("traced" if sandboxes is None else "container")
        folder.mkdir()
        tree, store = base.assembled.composition.tree, build_env.store
        with contextlib.ExitStack() as closing:
            prepared = sandboxes and closing.enter_context(prepare_session(sandboxes=sandboxes))
            state = closing.enter_context(
                open_state_session(base.image.layers[:-1], tree, folder, prepared=prepared, store=store, progress=QUIET)
            )
            bound, watch = state.session.share("/run/relbuild"), ChangeTracker(state)
            (bound / "script").write_text(script)
            (bound / "script").chmod(0o644)
            ended = state.session.run(["/bin/bash", "/run/relbuild/script"], stdin=b"in\n", timeout=HUNG)
            watch.record_step("script")
            changes = watch.changes(tree)
            for pattern in UNREPRODUCIBLE_PATHS:
                state.discard(*posixpath.split(pattern))
            layer = state.pack(tree, build_time=TIME, store=store, compression=Compression.GZIP)
        return (ended.status, ended.stdout, ended.stderr), changes, layer

    return act


@pytest.mark.parametrize("script", [OWNERS, TREE, ACCOUNTS, EDGES], ids=["owners", "tree", "accounts", "edges"])
def test_a_traced_script_does_what_it_does_in_a_container(
    run: Callable[[SandboxRegistry | None, str], Told], build_env: BuildEnvironment, script: str
) -> None:
    contained = run(build_env.sandboxes(), script)
    traced = run(None, script)
    assert traced[0] == contained[0]
    assert traced[1] == contained[1]
    entries = [list(layer_entries(told[2], store=build_env.store)) for told in (traced, contained)]
    assert entries[0] == entries[1]
    assert traced[2].diff_id == contained[2].diff_id


def test_a_traced_script_is_ended_with_all_that_it_started(
    run: Callable[[SandboxRegistry | None, str], Told],
) -> None:
    (status, out, _), _, _ = run(None, "sleep 1000 & setsid sleep 1000 & echo $!; exit 3")
    assert status == 3 and not alive(int(out))


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie that the machine's init has not waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
