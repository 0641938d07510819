"""The `oci:PATH` address form, as in skopeo: open the layout as a mirror of one repository."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address, AddressForm

if TYPE_CHECKING:
    from pipeline.mirror.backends.layout.layout_mirror import LayoutMirror
    from pipeline.mirror.mirror_access import MirrorAccess
    from pipeline.mirror.pull_source import PullSource


@dataclass(frozen=True, slots=True)
class LayoutForm(AddressForm):
    """The address form of layouts."""

    @property
    def is_path(self) -> bool:
        """See `AddressForm`."""
        return True

    def normal(self, rest: str) -> str:
        """See `AddressForm`: an absolute path."""
        return str(Path(rest).absolute())

    def locate(self, address: Address, *, create: bool) -> tuple[Address, str]:
        """See `AddressForm`: a layout is one repository, with an empty name."""
        return Address(self, address.rest), ""

    def mirror_of(self, address: Address) -> Address:
        """See `AddressForm`: the layout."""
        return Address(self, address.rest)

    @contextlib.contextmanager
    def open(
        self, address: Address, access: MirrorAccess, *, create: bool, name: str, signs: bool = False
    ) -> Iterator[LayoutMirror]:
        """See `AddressForm`. Raises UsageError `not-a-layout`."""
        from pipeline.mirror.backends.layout.layout_mirror import open_layout

        yield open_layout(address.path, create=create, identity=name or None)

    def pull_source(self, path: Path, clock: Callable[[], float]) -> PullSource | None:
        """See `AddressForm`: one repository, named after its folder."""
        from pipeline.mirror.backends.layout.layout_mirror import is_layout, open_layout
        from pipeline.mirror.pull_source import PullSource

        if not is_layout(path):
            return None
        layout = open_layout(path, create=False)
        name = "-".join(re.findall(r"[a-z0-9]+", path.absolute().name.lower())) or "layout"
        return PullSource(lambda: (name,), lambda asked: layout.repository(asked) if asked == name else None)


LAYOUT = LayoutForm("oci:", "oci:PATH:TAG", "oci:PATH")
