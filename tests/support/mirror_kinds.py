"""A new mirror of each kind, opened by its address: for tests of what every kind must do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.digest import Digest
from pipeline.mirror.address import Address, AddressForm
from pipeline.mirror.address_parser import ADDRESS_FORMS, parse_address
from pipeline.mirror.backends.registry.registry_address_form import RegistryForm
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.mirror.protocol import Mirror
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.registry_fake import fake_registry

FOLDER_FORMS = tuple(form for form in ADDRESS_FORMS if form.is_path)
"""The forms of the kinds of mirror that are folders on this machine."""


@contextlib.contextmanager
def new_mirror(form: AddressForm, folder: Path) -> Iterator[Mirror]:
    """A new mirror of one kind. A kind that needs something that runs gets a case here."""
    with contextlib.ExitStack() as stack:
        match form:
            case RegistryForm():
                host = stack.enter_context(fake_registry(requires_content=True)).host
                address = parse_address(f"registry+http://{host}/team")
            case _:
                address = Address(form, str(folder / "mirror"))
        access = MirrorAccess({}, QUIET, mirror_images.ticking(), Store.open(folder / "remembered"))
        yield stack.enter_context(access.mirror(address, create=True))


def root_of(mirror: Mirror) -> Path:
    """The folder of a mirror of one of the FOLDER_FORMS."""
    return parse_address(mirror.url).path


def file_of(mirror: Mirror, digest: Digest) -> Path:
    """The one file of a mirror of one of the FOLDER_FORMS that has the bytes of a blob or manifest."""
    (found,) = [path for path in root_of(mirror).rglob(f"{digest.hex}*") if path.is_file() and not path.is_symlink()]
    return found
