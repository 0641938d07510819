"""State shared by the functions that execute system calls: tree, look-ups, processes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import field

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.traced.inode_records import InodeRecord
from pipeline.sandbox.traced.recorded_tree import RecordedTree
from pipeline.sandbox.traced.tracee import TracedCall, Tracee
from pipeline.sandbox.traced.tree_lookup import Place, TreeLookup, failure

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000

ProgramKey = tuple[int, int, int, int, int, tuple[str, ...]]
"""A program's device, inode, times of content and of inode, size; and where a chroot has put who executes it."""


@dataclass(slots=True)
class CallContext:
    """The tree, the processes by ID, and what is kept until the command ends.

    `programs` is a folder for copies of programs that can be executed outside of the tree; `unsupported` says what a
    process asked for that cannot be done here, and would be in a container. `suspects` are files with set-id bits or
    capabilities that were opened to write, by device and inode: a path, and the digest of the content then. `copies`
    are those in `programs`.
    """

    tree: RecordedTree
    lookup: TreeLookup
    tracees: dict[int, Tracee]
    programs: str
    unsupported: str = ""
    suspects: dict[tuple[int, int], tuple[str, Digest]] = field(default_factory=dict)
    copies: dict[ProgramKey, str] = field(default_factory=dict)

    def at(self, call: TracedCall, folder: int | None, path: int, *, follow: bool = True) -> Place:
        """Look up the path in argument `path`, from the descriptor in argument `folder`, if any."""
        named = AT_FDCWD if folder is None else call.integer(folder)
        return self.lookup.find(call.tracee, named, call.text(path), follow=follow)

    def parent_of(self, call: TracedCall, place: Place) -> str:
        """Return the path in the image of a name's directory.

        Raises OSError EACCES if the process may not make and remove names there.
        """
        inside = place.inside()
        if not inside:
            raise failure(errno.EBUSY)
        folder = inside.rpartition("/")[0]
        status = os.lstat(self.tree.root / folder)
        if not call.tracee.credentials.may(self.tree.records.of(status), 0o3):
            raise failure(errno.EACCES)
        return folder

    def require_new(self, call: TracedCall, place: Place) -> str:
        """Return the path of a name that is to be made. Raises OSError EEXIST."""
        if place.status is not None:
            raise failure(errno.EEXIST)
        self.parent_of(call, place)
        return place.inside()

    def new_record(self, call: TracedCall, path: str, mode: int, *, directory: bool = False) -> InodeRecord:
        """Return the record of a file that the process makes: its own, or of its directory's group."""
        credentials = call.tracee.credentials
        folder = self.tree.records.of(os.lstat(self.tree.root / path.rpartition("/")[0]))
        group, mode = credentials.groups[3], mode & 0o7777 & ~call.tracee.umask()
        if folder.mode & stat.S_ISGID:
            group = folder.gid
            mode |= stat.S_ISGID if directory else 0
        return InodeRecord(mode, credentials.users[3], group)

    def require_owner(self, call: TracedCall, record: InodeRecord) -> None:
        """Raise OSError EPERM if the process is neither root nor the file's owner."""
        if call.tracee.credentials.users[3] not in (0, record.uid):
            raise failure(errno.EPERM)


Execute = Callable[[CallContext, TracedCall], "int | None"]
"""Execute a call and return its result; None: the kernel executes it, with what the registers say now. Raises OSError
for a call that fails."""
