"""The `dir:PATH/NAME` address form: locate a directory mirror's root and open the mirror."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address, AddressForm, names_no_repository

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
    from pipeline.mirror.mirror_access import MirrorAccess
    from pipeline.mirror.pull_source import PullSource
    from pipeline.model.scrub import Finding

MARKER = "relbuild-mirror.json"
"""Name of the file in a directory mirror's root that marks it as one."""

SCRUB_WRITES_MARKER = "`relbuild scrub dir:{}` writes it anew, with the name in the mirror's signatures"
"""The hint of errors of a mirror without a whole marker; `{}` is its root."""

_BLOB_NAME = re.compile(r"[0-9a-f]{64}")


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
        found = find_root(address.path, reads=not create)
        if found is None and create:
            found = (address.path.parent, address.path.name)
        if found is not None and not found[1]:
            _refuse_inner_mirror(found[0])
        if found is None:
            why = _why_no_mirror(address.path)
            raise UsageError(
                "not-a-mirror",
                f"neither '{address.path}' nor a folder above it is a mirror{f': {why}' if why else ''}",
                place=str(address),
                hint="write dir:PATH-OF-THE-MIRROR/NAME, with the directory that images were published to",
            )
        if not found[1]:
            raise names_no_repository(address, f"{address.url}/NAME")
        return Address(self, str(found[0])), found[1]

    def mirror_of(self, address: Address) -> Address:
        """See `AddressForm`: the mirror above, or the folder in which one can be made."""
        from pipeline.mirror.backends.directory.directory_mirror import can_be_made

        found = find_root(address.path)
        above = address.path.parent
        return Address(self, str(found[0] if found else above if can_be_made(above) else address.path))

    def require_place(self, address: Address, name: str) -> None:
        """See `AddressForm`: a mirror is made where nothing is, or nothing but its rules."""
        from pipeline.mirror.backends.directory.directory_mirror import can_be_made

        root = address.path.parent
        if find_root(address.path) is not None or can_be_made(root):
            return
        possible = root.is_dir() and can_be_made(address.path)  # Nothing can be made in a file.
        way_out = f"write {address.below(name)}" if possible else "choose a new directory"
        raise UsageError(
            "not-a-mirror",
            f"'{address}' is a repository in '{root}', which is neither empty nor a mirror",
            place=str(address),
            hint=f"{way_out}: the last part of the address is the repository's name",
        )

    @contextlib.contextmanager
    def open(
        self, address: Address, access: MirrorAccess, *, create: bool, name: str, signs: bool = False
    ) -> Iterator[DirectoryMirror]:
        """See `AddressForm`. Raises UsageError `not-a-mirror`, `mirror-format`, `mirror-host`."""
        from pipeline.mirror.backends.directory.directory_mirror import open_directory
        from pipeline.mirror.backends.directory.mirror_marker import require_own_host, require_remembered_host
        from pipeline.mirror.backends.directory.mirror_owner import require_own
        from pipeline.model.publication import NO_HOST

        made = not os.path.lexists(address.path / MARKER)
        if signs:
            require_own(address.path)
        why = _why_no_mirror(address.path) if made and create else ""
        mirror = open_directory(address.path, create=create, clock=access.clock, host=name or None, signs=signs)
        if signs:
            require_own_host(address.path, mirror.host)  # another user may have made it since, or exchanged it
        if why:
            access.progress.warn(f"{why}; '{address.path}' is a mirror of its own")
        if signs and access.store is not None:
            # What signs is compared, and not what the file says by now.
            stated = bool(name) or (made and mirror.host == NO_HOST)
            require_remembered_host(address.path, mirror.host, access.store, stated=stated)
        yield mirror

    def restore_marker(self, address: Address, access: MirrorAccess, name: str) -> Finding | None:
        """See `AddressForm`. The name that is stated is remembered."""
        from pipeline.mirror.backends.directory.mirror_marker import (
            read_host,
            remembered_host,
            require_remembered_host,
            restore_marker,
        )

        known = remembered_host(address.path, access.store) if access.store is not None else ""
        found = restore_marker(address.path, access.clock, name, known, access.progress.warn)
        has_name = found is not None or (os.path.lexists(address.path / MARKER) and read_host(address.path) == name)
        if name and has_name and access.store is not None:
            require_remembered_host(address.path, name, access.store, stated=True)
        return found

    def exists(self, address: Address) -> bool:
        """See `AddressForm`. Raises UsageError `mirror-nested`."""
        if address.path.exists():
            return True
        refuse_nested(address.path)
        return False

    def served_folder(self, address: Address) -> Path | None:
        """See `AddressForm`: the mirror's root."""
        return address.path

    def pull_source(self, path: Path, clock: Callable[[], float]) -> PullSource | None:
        """See `AddressForm`."""
        from pipeline.mirror.backends.directory.directory_mirror import open_directory
        from pipeline.mirror.pull_source import PullSource

        found = find_root(path, reads=True)
        if found is None or found[1]:
            return None
        mirror = open_directory(path, create=False, clock=clock)
        return PullSource(mirror.repositories, mirror.existing)

    def operators_file(self, address: Address, name: str, *, signs: bool) -> Path | None:
        """See `AddressForm`. `address` can be a repository's too, if the mirror exists.

        With `signs`, the file counts before the mirror is made in its folder: for the first publication, too.
        Raises UsageError `rules-not-own`; with `signs`, `mirror-not-own`, EnvironmentLacking `mirror-unreachable`.
        """
        from pipeline.mirror.atomic_files import mirror_errors
        from pipeline.mirror.backends.directory.directory_mirror import can_be_made
        from pipeline.mirror.backends.directory.mirror_owner import has_own_rules, open_own

        found = find_root(address.path)
        if found is None and not signs and _is_root(address.path, reads=True):  # another user's counts where named
            found = address.path, ""
        if found is None and signs and os.path.lexists(address.path / name) and can_be_made(address.path):
            found = address.path, ""
        if found is None:
            return None
        root = found[0]
        if signs:
            with mirror_errors(address.url):
                try:
                    os.close(open_own(root))  # nobody exchanges it from here on
                except FileNotFoundError:  # exchanged: no rules hold for what is made there
                    return None
        return root / name if has_own_rules(root / name, None if signs else root / MARKER) else None


def find_root(path: Path, *, reads: bool = False) -> tuple[Path, str] | None:
    """Split `ROOT/NAME` into the mirror's root, found by its marker, and the repository's name.

    The name is empty for the root itself. Returns None if no parent folder is a mirror. Only the root need exist. What
    another user put into a folder that all share, such as /tmp, makes no mirror of it; but one that is only read
    (`reads`) is found where all of it is that user's. Raises VerificationError `marker-missing` for a mirror that has
    lost its marker; another user's only where `path` is that folder, since its content says nothing of what is in it.
    """
    for folder in (path.absolute(), *path.absolute().parents):
        if _is_root(folder, reads=reads):
            name = path.absolute().relative_to(folder).as_posix()
            return folder, "" if name == "." else name
        named = folder == path.absolute()
        if is_unmarked(folder) and _counts(folder / "repositories", reads=reads and named):
            raise marker_missing(folder)
    return None


def _is_root(folder: Path, *, reads: bool) -> bool:
    # First whose it is: another user's link may lead to where this one may not look.
    if os.path.lexists(folder / MARKER) and not _counts(folder / MARKER, reads=reads):
        return False
    return _has_marker(folder) or _is_damaged(folder)


def _has_marker(folder: Path) -> bool:
    """Return whether a folder's marker is a file; no link is, where this user may not follow it."""
    try:
        return (folder / MARKER).is_file()
    except PermissionError:
        if (folder / MARKER).is_symlink():
            return False
        raise


def _counts(path: Path, *, reads: bool) -> bool:
    from pipeline.mirror.backends.directory.mirror_owner import is_foreign, is_of_one_user

    return not is_foreign(path) or (reads and is_of_one_user(path.parent))


def _why_no_mirror(path: Path) -> str:
    """Say which marker of another user does not count in a folder or one above it; "" for none."""
    from pipeline.mirror.backends.directory.mirror_owner import passed_over, passed_over_text

    marker = passed_over(path)
    return passed_over_text(marker) if marker is not None else ""


def is_unmarked(folder: Path) -> bool:
    """Return whether a folder has the content of a directory mirror, and no marker.

    docker-registry's storage and OCI layouts have folders of the same names, and no files like these in them.
    """
    with contextlib.suppress(OSError):
        # The marker last: another process may make the mirror, and publish to it, meanwhile.
        return _has_content(folder) and not os.path.lexists(folder / MARKER)
    return False


def _is_damaged(folder: Path) -> bool:
    """Return whether a folder has a mirror's content, and a marker that is no file."""
    with contextlib.suppress(OSError):
        return os.path.lexists(folder / MARKER) and _has_content(folder)
    return False


def _has_content(folder: Path) -> bool:
    blobs, repositories = folder / "blobs" / "sha256", folder / "repositories"
    if not repositories.is_dir() or not blobs.is_dir():
        return False
    with os.scandir(blobs) as entries:
        if any(_BLOB_NAME.fullmatch(entry.name) and entry.is_file() for entry in entries):
            return True
    for _, inner, _ in os.walk(repositories):
        if {"_tags", "_manifests"} <= set(inner):
            return True
        inner[:] = [name for name in inner if not name.startswith(("_", "."))]
    return False


def marker_missing(root: Path) -> VerificationError:
    """Make the error of a mirror that has lost its marker."""
    return VerificationError(
        "marker-missing",
        f"'{root}' has the content of a mirror, but no {MARKER}",
        place=str(root),
        hint=SCRUB_WRITES_MARKER.format(root),
    )


def refuse_nested(root: Path) -> None:
    """Refuse to make a mirror inside another one, or around another one.

    Raises UsageError `mirror-nested`.
    """
    above = find_root(Path(os.path.realpath(root)).parent)  # Path.resolve has no error of its own for a loop of links
    if above is not None:
        raise UsageError(
            "mirror-nested",
            f"a mirror in '{root}' would be inside the mirror '{above[0]}'",
            place=str(root),
            hint=f"write {DIRECTORY.prefix}{above[0]}: products become its repositories; a mirror of its own needs a "
            "folder outside of it",
        )
    below = _mirror_below(root)
    if below is not None:
        raise UsageError(
            "mirror-nested",
            f"a mirror in '{root}' would be around the mirror '{below}'",
            place=str(root),
            hint=f"write {DIRECTORY.prefix}{below}, or choose a new directory beside it",
        )


def _refuse_inner_mirror(root: Path) -> None:
    """Refuse the address of a mirror inside another one where a repository is expected.

    Older versions of relbuild made such mirrors. Raises UsageError `mirror-nested`.
    """
    above = find_root(root.parent)
    if above is not None:
        raise UsageError(
            "mirror-nested",
            f"'{root}' is a mirror inside the mirror '{above[0]}', and no repository",
            place=str(root),
            hint=f"write {DIRECTORY.prefix}{root}/NAME for what was published to it, or move that folder away",
        )


def _mirror_below(root: Path) -> Path | None:
    """Return a mirror in a folder or in a folder of it; only the first entries are looked at."""
    for pattern in (f"*/{MARKER}", f"*/*/{MARKER}"):
        with contextlib.suppress(OSError):
            marker = next(root.glob(pattern), None)
            if marker is not None:
                return marker.parent
    return None


DIRECTORY = DirectoryForm("dir:", "dir:PATH/NAME:TAG", "dir:PATH")
