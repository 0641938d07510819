"""Parsed address of a mirror or repository, and the interface by which its kind opens it.

`address_parser` parses the text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass

if TYPE_CHECKING:
    from pipeline.mirror.mirror_access import MirrorAccess
    from pipeline.mirror.protocol import Mirror
    from pipeline.mirror.pull_source import PullSource
    from pipeline.model.scrub import Finding
    from pipeline.transfer import KnownAnswer, TrafficCounts


@dataclass(frozen=True, slots=True)
class AddressForm(ABC):
    """Interface of the addresses of one kind of mirror: normalise, split, and open them.

    `prefix`: the beginning of such an address; `example`, and `mirror_example` of a mirror's own: shown in hints ("":
    none).

    Each kind of mirror is a folder below `backends` that implements this, and its form an item of
    `address_parser.ADDRESS_FORMS`. The rest of that folder is imported only when a mirror is opened: most commands open
    none, or one.
    """

    prefix: str
    example: str
    mirror_example: str

    @property
    @abstractmethod
    def is_path(self) -> bool:
        """Return whether the part after the prefix is a path on this machine."""

    @abstractmethod
    def normal(self, rest: str) -> str:
        """Normalise the part after the prefix, without tag and digest.

        Raises UsageError.
        """

    @abstractmethod
    def locate(self, address: Address, *, create: bool) -> tuple[Address, str]:
        """Split a repository's address into its mirror's address and its name on that mirror.

        `create`: the mirror need not exist yet. Raises UsageError `address-malformed`,
        `not-a-mirror`.
        """

    @abstractmethod
    def mirror_of(self, address: Address) -> Address:
        """Return the address of the mirror that is meant by an image's address, or can be made."""

    def require_place(self, address: Address, name: str) -> None:
        """Refuse a repository's address if its mirror does not exist and cannot be made.

        `name`: a repository's name for the hint. Raises UsageError `not-a-mirror`.
        """
        return None

    @abstractmethod
    def open(
        self, address: Address, access: MirrorAccess, *, create: bool, name: str, signs: bool = False
    ) -> AbstractContextManager[Mirror]:
        """Open the mirror at an address.

        `create`: make it if it is missing. `name`: the `HOST/NAMESPACE` by which clients pull from it ("": the default,
        or the one that it has already). `signs`: refuse a mirror with another name than the store remembers. Raises
        UsageError.
        """

    def can_ask_again(self, address: Address, environment: Mapping[str, str]) -> bool:
        """Return whether `ask_again` can tell anything of this mirror."""
        return False

    def ask_again(
        self,
        address: Address,
        answers: Sequence[KnownAnswer],
        scopes: Sequence[str],
        environment: Mapping[str, str],
    ) -> Callable[[], TrafficCounts | None]:
        """Begin to ask a mirror what it was asked; return a function that awaits the answers.

        `answers` and `scopes` are those of a `QuestionLog`. It returns the requests if all answers are the same, None
        if one is another, and raises NotCompared if they are not known.
        """
        raise NotImplementedError

    # --- only for mirrors that are folders on this machine

    def restore_marker(self, address: Address, access: MirrorAccess, name: str) -> Finding | None:
        """Restore the file by which a mirror is known, or the name in it; return the finding.

        `name`: the `HOST/NAMESPACE` by which clients pull from it ("": that in its signatures). Raises UsageError.
        """
        return None

    def exists(self, address: Address) -> bool:
        """Return False if the mirror does not exist yet and a nightly run is to make it.

        True where only opening the mirror tells whether it exists.
        """
        return True

    def served_folder(self, address: Address) -> Path | None:
        """Return the folder that a web server serves, where pages can be written beside the mirror."""
        return None

    def pull_source(self, path: Path, clock: Callable[[], float]) -> PullSource | None:
        """Open the mirror at `path` for `relbuild serve`; None if there is none of this kind.

        `clock`: seconds since the epoch."""
        return None

    def operators_file(self, address: Address, name: str, *, signs: bool) -> Path | None:
        """Return the file `name` in the mirror's root, where its operator put it; None if missing.

        `signs`: it decides what is signed on the mirror.
        """
        return None


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a mirror, or of a repository, tag or digest on it.

    `rest` is the part after the form's prefix, without tag and digest: host and path, or an absolute path, so that it
    means the same in every process.
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
        """The address without tag and digest."""
        return f"{self.form.prefix}{self.rest}"

    def __str__(self) -> str:
        return f"{self.url}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"

    @property
    def reference(self) -> Digest | str:
        """The digest if one is given, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    @property
    def path(self) -> Path:
        """`rest` as a path on this machine; only where `form.is_path`."""
        return Path(self.rest)

    def below(self, name: str) -> Address:
        """Return the address of the repository `name` on the mirror at this address."""
        return Address(self.form, f"{self.rest.rstrip('/')}/{name}")


def names_no_repository(address: Address, form: str) -> UsageError:
    """Make the error of an address that names a mirror where a repository is expected.

    `form`: shown in the hint.
    """
    return UsageError(
        "address-malformed", f"'{address}' is not the address of a repository on a mirror", hint=f"write {form}"
    )
