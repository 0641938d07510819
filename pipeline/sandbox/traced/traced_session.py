"""Run commands on a recorded tree, traced, for those who have no privileges.

It has the same methods as a session in containers (`pipeline.sandbox.build_container`). There is no isolation but the
one of who runs relbuild: the tracer shows processes only the tree, but a hostile program could get past it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path, PurePosixPath

from pipeline.errors import BuildError, EnvironmentLacking, UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.build_container import BuildLimits
from pipeline.sandbox.command_container import CommandResult
from pipeline.sandbox.entry_program import require_entry_program
from pipeline.sandbox.output import Capture
from pipeline.sandbox.runtime_bundle import DEFAULT_PATH, ProcessPlan
from pipeline.sandbox.traced.account_calls import HOST_NAME
from pipeline.sandbox.traced.call_context import CallContext, ProgramKey
from pipeline.sandbox.traced.inode_records import InodeRecord
from pipeline.sandbox.traced.named_entries import SESSION_FOLDERS
from pipeline.sandbox.traced.recorded_files import RecordedFiles
from pipeline.sandbox.traced.recorded_tree import RecordedTree
from pipeline.sandbox.traced.tracee import Tracee
from pipeline.sandbox.traced.tracer import TracedCommand
from pipeline.sandbox.traced.tree_lookup import DEVICES, HOST_NAME_FILE, TreeLookup

_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


@dataclass(slots=True)
class TracedSession:
    """A session of traced commands on a recorded tree, made by `traced_session`."""

    tree: RecordedTree
    files: RecordedFiles
    folder: Path
    limits: BuildLimits
    architecture: str = ""
    _copies: dict[ProgramKey, str] = field(default_factory=dict)

    @property
    def shift(self) -> int:
        """The host's ID minus the image's: none, since owners are in the table."""
        return 0

    def bind(self, source: Path, target: str) -> None:
        """Show a copy of a directory of the host at `target`, below /run or /tmp."""
        shutil.copytree(source, self._scratch(target), symlinks=True, dirs_exist_ok=True)

    def share(self, target: str) -> Path:
        """Make a folder that this process writes to and all later commands read at `target`."""
        place = self._scratch(target)
        place.mkdir(parents=True)
        return place

    def begin_commands(self, folder: Path, target: str) -> None:
        """Accept that commands follow one another: a traced one needs no container."""

    def end_commands(self) -> None:
        """Accept the end of what `begin_commands` began."""

    def _scratch(self, target: str) -> Path:
        place = PurePosixPath(target)
        if len(place.parts) < 3 or place.parts[1] not in ("run", "tmp") or ".." in place.parts:
            raise UsageError("bind-elsewhere", f"the target '{target}' of the bind mount is not below /run or /tmp")
        return self.folder.joinpath("mounted", *place.parts[1:])

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        timeout: float = 300.0,
    ) -> CommandResult:
        """Run a command as the image's root, without a network, and wait for its end.

        See `BuildSession.run`. Memory is limited for each process, not for all together. Raises EnvironmentLacking
        `tracing-refused` where processes cannot be traced.
        """
        for point in SESSION_FOLDERS:
            if self.files.stat(point, follow=False) is not None:
                self.files.require_mount_point(f"/{point}")
        variables = {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": "C.UTF-8", **(environment or {})}
        if self.architecture:
            plan = ProcessPlan(tuple(argv), tuple(f"{name}={value}" for name, value in variables.items()), "/")
            require_entry_program(self.files, plan, self.architecture)
        tracees: dict[int, Tracee] = {}
        context = CallContext(
            self.tree,
            TreeLookup(str(self.tree.root), tracees),
            tracees,
            str(self.folder / "programs"),
            copies=self._copies,
        )
        command = TracedCommand(
            context,
            argv,
            variables,
            self.tree.root,
            {
                "RLIMIT_CORE": 0,
                "RLIMIT_DATA": self.limits.memory,
                "RLIMIT_FSIZE": self.limits.disk,
                "RLIMIT_NOFILE": self.limits.open_files,
            },
            self.limits.pids,
        )
        begun, owner = time.monotonic(), (os.getuid(), os.getgid())
        with (
            tempfile.TemporaryFile() as source,
            Capture(self.limits.output, uid=owner[0], gid=owner[1]) as out,
            Capture(self.limits.output, uid=owner[0], gid=owner[1]) as err,
            self._mounted(),
        ):
            source.write(stdin)
            source.seek(0)
            try:
                in_time = command.run(timeout, stdin=source, stdout=out.write_end, stderr=err.write_end)
            except OSError as error:
                raise EnvironmentLacking(
                    "tracing-refused",
                    f"processes cannot be traced here: {error}",
                    hint="`relbuild doctor` shows what this machine allows",
                ) from error
        said = err.kept.decode(errors="replace").strip()[-1000:]
        if not command.started and in_time:
            raise BuildError(
                "command-not-started",
                f"cannot start '{' '.join(argv)[:200]}': {said}",
                hint="check that the program is in the image; `relbuild doctor` shows what the machine lacks",
            )
        return CommandResult(
            tuple(argv),
            command.status,
            out.kept,
            err.kept,
            time.monotonic() - begun,
            not in_time,
            out_of_disk=self._written() > self.limits.disk,
            dropped=out.dropped + err.dropped,
            pids_refused=command.too_many,
            unsupported=context.unsupported,
        )

    def _written(self) -> int:
        """Return the bytes of all files that were changed."""
        total = 0
        for path in self.tree.changed:
            with contextlib.suppress(OSError):
                total += os.lstat(self.tree.root / path).st_size
        return total

    @contextlib.contextmanager
    def _mounted(self) -> Iterator[None]:
        """Put the session's directories into the place of the image's, while a command runs."""
        root, aside, mounted = self.tree.root, self.folder / "aside", self.folder / "mounted"
        times = root.stat()
        for name in SESSION_FOLDERS:
            if (root / name).exists():
                (root / name).rename(aside / name)
            (mounted / name).rename(root / name)
        try:
            yield
        finally:
            for name in SESSION_FOLDERS:
                (root / name).rename(mounted / name)
                if (aside / name).exists():
                    (aside / name).rename(root / name)
            os.utime(root, ns=(times.st_atime_ns, times.st_mtime_ns))
            self.tree.changed -= {path for path in self.tree.changed if path.split("/", 1)[0] in SESSION_FOLDERS}


@contextlib.contextmanager
def traced_session(
    tree: RecordedTree, folder: Path, *, limits: BuildLimits | None = None, architecture: str = ""
) -> Iterator[TracedSession]:
    """Open a session on a recorded tree; `folder` is empty and on the same file system.

    `architecture` is as for `build_session`.
    """
    for name in ("aside", "mounted", "programs"):
        (folder / name).mkdir()
    for name, mode in SESSION_FOLDERS.items():
        place = folder / "mounted" / name
        place.mkdir(mode=0o755)
        tree.records.set(place.lstat(), InodeRecord(mode))
    for device in DEVICES:
        (folder / "mounted/dev" / device).touch()
    named = folder / "mounted/proc" / HOST_NAME_FILE
    named.write_text(f"{HOST_NAME}\n")
    named.chmod(0o444)
    for link, target in _DEVICE_LINKS.items():
        (folder / "mounted/dev" / link).symlink_to(target)
    shared = folder / "mounted/dev/shm"
    shared.mkdir()
    tree.records.set(shared.lstat(), InodeRecord(stat.S_ISVTX | 0o777))
    handle = os.open(tree.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield TracedSession(tree, RecordedFiles(handle, 0, tree), folder, limits or BuildLimits(), architecture)
    finally:
        os.close(handle)
