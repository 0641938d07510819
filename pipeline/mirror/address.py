"""Addresses of mirrors and repositories, as people write them.

Also how the addresses of one kind of mirror are read and opened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.mirror.mirror_access import MirrorAccess
    from pipeline.mirror.protocol import Mirror
    from pipeline.mirror.pull_source import PullSource


@dataclass(frozen=True, slots=True)
class AddressForm(ABC):
    """The form of the addresses of one kind of mirror.

    `prefix` is how they begin; `example` what hints show ("": nothing).

    A kind of mirror is a folder below `backends`, and its form a line in `addresses.FORMS`. What needs the rest of that
    folder is imported when a mirror is opened: most commands open no mirror, or one.
    """

    prefix: str
    example: str

    @property
    @abstractmethod
    def is_path(self) -> bool:
        """Return whether what follows the prefix is a path of this machine."""

    @abstractmethod
    def normal(self, rest: str) -> str:
        """Bring what follows the prefix, without tag and digest, into its normal form.

        Raises UsageError.
        """

    @abstractmethod
    def locate(self, address: Address, *, create: bool) -> tuple[Address, str]:
        """Split a repository's address into its mirror's address and its name on that mirror.

        `create`: the mirror may be made. Raises UsageError `address-malformed`.
        """

    @abstractmethod
    def open(
        self, address: Address, access: MirrorAccess, *, create: bool, name: str
    ) -> AbstractContextManager[Mirror]:
        """Open the mirror at an address.

        `create`: one that is not there is made, known to those who pull as `name` (`HOST/NAMESPACE`; "": the default,
        or what it is known as already). Raises UsageError.
        """

    # --- what mirrors have that are folders of this machine

    def exists(self, address: Address) -> bool:
        """Return False if nothing is at the address yet and a nightly run makes the mirror.

        True where opening the address tells whether it exists.
        """
        return True

    def served_folder(self, address: Address) -> Path | None:
        """The folder that a web server serves, in which pages can stand beside the mirror."""
        return None

    def pull_source(self, path: Path, clock: Callable[[], float]) -> PullSource | None:
        """Open a mirror of this kind at `path` to be served; None if there is none.

        `clock`: seconds since the epoch."""
        return None

    def keepers_file(self, address: Address, name: str) -> Path | None:
        """A file of this name that the keeper put into the root of the mirror."""
        return None


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a mirror, or of a repository, tag or digest on it.

    `rest` is what follows the form's prefix, without tag and digest: host and path, or a path from the root, so that it
    names the same place in every process.
    """

    form: AddressForm
    rest: str
    tag: str = ""
    digest: Digest | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a relative path."""
        if self.form.is_path and not self.path.is_absolute():
            raise ValueError(f"'{self.rest}' is a relative path")

    @property
    def url(self) -> str:
        """Without tag and digest."""
        return f"{self.form.prefix}{self.rest}"

    def __str__(self) -> str:
        return f"{self.url}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"

    @property
    def reference(self) -> Digest | str:
        """The digest if one is given, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    @property
    def path(self) -> Path:
        """The path on this machine, where the form says that it is one."""
        return Path(self.rest)

    def below(self, name: str) -> Address:
        """The repository `name` of the mirror that this names."""
        return Address(self.form, f"{self.rest.rstrip('/')}/{name}")


def names_no_repository(address: Address, form: str) -> UsageError:
    """Return the error of an address that names a mirror where a repository is wanted.

    `form`: what to write.
    """
    return UsageError(
        "address-malformed", f"'{address}' is not the address of a repository on a mirror", hint=f"write {form}"
    )
