"""The `dir:PATH/NAME` address form: locate a directory mirror's root and open the mirror."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address, AddressForm, names_no_repository

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
    from pipeline.mirror.mirror_access import MirrorAccess
    from pipeline.mirror.pull_source import PullSource

MARKER = "relbuild-mirror.json"
"""Name of the file in a directory mirror's root that marks it as one."""


@dataclass(frozen=True, slots=True)
class DirectoryForm(AddressForm):
    """The address form of directory mirrors."""

    @property
    def is_path(self) -> bool:
        """See `AddressForm`."""
        return True

    def normal(self, rest: str) -> str:
        """See `AddressForm`: an absolute path."""
        return str(Path(rest).absolute())

    def locate(self, address: Address, *, create: bool) -> tuple[Address, str]:
        """See `AddressForm`: the mirror's root is looked for upwards from the repository's path."""
        found = find_root(address.path)
        if found is None and create:
            found = (address.path.parent, address.path.name)
        if found is None or not found[1]:
            raise names_no_repository(address, f"{address.url}/NAME" if found else "dir:PATH-OF-THE-MIRROR/NAME")
        return Address(self, str(found[0])), found[1]

    def require_place(self, address: Address, name: str) -> None:
        """See `AddressForm`: a mirror is made in an empty folder, or where nothing is."""
        from pipeline.mirror.backends.directory.directory_mirror import can_be_made

        root = address.path.parent
        if find_root(address.path) is not None or can_be_made(root):
            return
        way_out = f"write {address.below(name)}" if can_be_made(address.path) else "choose a new directory"
        raise UsageError(
            "not-a-mirror",
            f"'{address}' is a repository in '{root}', which is neither empty nor a mirror",
            place=str(address),
            hint=f"{way_out}: the last part of the address is the repository's name",
        )

    @contextlib.contextmanager
    def open(self, address: Address, access: MirrorAccess, *, create: bool, name: str) -> Iterator[DirectoryMirror]:
        """See `AddressForm`. Raises UsageError `not-a-mirror`, `mirror-format`, `mirror-host`."""
        from pipeline.mirror.backends.directory.directory_mirror import open_directory

        yield open_directory(address.path, create=create, clock=access.clock, host=name or None)

    def exists(self, address: Address) -> bool:
        """See `AddressForm`."""
        return address.path.exists()

    def served_folder(self, address: Address) -> Path | None:
        """See `AddressForm`: the mirror's root."""
        return address.path

    def pull_source(self, path: Path, clock: Callable[[], float]) -> PullSource | None:
        """See `AddressForm`."""
        from pipeline.mirror.backends.directory.directory_mirror import open_directory
        from pipeline.mirror.pull_source import PullSource

        found = find_root(path)
        if found is None or found[1]:
            return None
        mirror = open_directory(path, create=False, clock=clock)
        return PullSource(mirror.repositories, mirror.existing)

    def operators_file(self, address: Address, name: str) -> Path | None:
        """See `AddressForm`. `address` can be a repository's too."""
        for folder in (address.path, *address.path.parents):
            if (folder / name).is_file() and (folder / MARKER).is_file():
                return folder / name
        return None


def find_root(path: Path) -> tuple[Path, str] | None:
    """Split `ROOT/NAME` into the mirror's root, found by its marker, and the repository's name.

    The name is empty for the root itself. Returns None if no parent folder is a mirror. Only the root need exist.
    """
    for folder in (path.absolute(), *path.absolute().parents):
        if (folder / MARKER).is_file():
            name = path.absolute().relative_to(folder).as_posix()
            return folder, "" if name == "." else name
    return None


DIRECTORY = DirectoryForm("dir:", "dir:PATH/NAME:TAG")
