"""Parse the text of an address of a mirror, repository, tag or digest.

    registry://HOST[:PORT]/NAMESPACE/NAME[:TAG][@sha256:…]     a registry over HTTPS
    registry+http://HOST:PORT/NAMESPACE/NAME[:TAG][@sha256:…]  a registry over plain HTTP
    dir:PATH/NAME[:TAG][@sha256:…]                             a directory that a web server serves
    oci:PATH[:TAG][@sha256:…]                                  an OCI layout, as skopeo writes it

`docker://`, as skopeo and podman write it, is read as `registry://`. The address of a mirror has no NAME, TAG and
digest.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address import Address, AddressForm
from pipeline.mirror.backends.directory.directory_address_form import DIRECTORY
from pipeline.mirror.backends.layout.layout_address_form import LAYOUT
from pipeline.mirror.backends.registry.registry_address_form import PLAIN_REGISTRY, REGISTRY
from pipeline.mirror.protocol import TAG
from pipeline.urls import shown_url

ADDRESS_FORMS: tuple[AddressForm, ...] = (REGISTRY, PLAIN_REGISTRY, DIRECTORY, LAYOUT)
"""The address form of every kind of mirror. No prefix is the beginning of another."""

_DOCKER = "docker://"
"""The prefix of a registry's address for skopeo, podman and buildah."""


def is_address(text: str) -> bool:
    """Return whether a text is an address on a mirror, and not the name of a file or recipe."""
    return _usual(text).startswith(tuple(form.prefix for form in ADDRESS_FORMS))


def _usual(text: str) -> str:
    return REGISTRY.prefix + text.removeprefix(_DOCKER) if text.startswith(_DOCKER) else text


def parse_address(text: str) -> Address:
    """Parse an address; a relative path in it is relative to the working directory.

    Raises UsageError `address-malformed`.
    """
    return _parse(text, [form.example for form in ADDRESS_FORMS if form.example])


def parse_mirror_address(text: str, option: str) -> Address:
    """Parse the address of a mirror, which has no tag and no digest.

    `option`: what takes it, for the message. Raises UsageError `address-malformed`.
    """
    shapes = [form.mirror_example for form in ADDRESS_FORMS if form.mirror_example]
    if text.startswith(("/", "./", "../")):
        shapes = [shape.replace("PATH", text) for shape in shapes]
    address = _parse(text, shapes)
    if address.tag or address.digest is not None:
        raise UsageError(
            "address-malformed",
            f"'{address}' is the address of an image, and {option} takes a mirror's",
            hint=f"write {address.form.mirror_of(address)}, without a repository's name, tag and digest",
        )
    return address


def _parse(text: str, shapes: Sequence[str]) -> Address:
    """Parse an address; `shapes` are those that the hints of errors show."""
    text = _usual(text)
    form = next((form for form in ADDRESS_FORMS if text.startswith(form.prefix)), None)
    if form is None:
        raise _malformed(text, f"it must start with {_or([form.prefix for form in ADDRESS_FORMS])}", shapes)
    rest, at, stated = text.removeprefix(form.prefix).partition("@")
    try:
        digest = Digest.parse(stated) if at else None
    except VerificationError:
        why = "the part after '@' must be a sha256 digest; pass credentials with `podman login`"
        raise _malformed(text, why, shapes) from None
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":") if "/" in rest or form.is_path else (last, "", "")
    if colon and not TAG.fullmatch(tag):
        why = f"'{tag[:140]}' is not a valid tag: up to 128 letters, digits, _ . and -"
        raise _malformed(text, why, shapes)
    rest = f"{head}{slash}{last}".rstrip("/")
    if not rest:
        raise _malformed(text, "it has no host or path", shapes)
    return Address(form, form.normal(rest), tag, digest)


def _malformed(text: str, why: str, shapes: Sequence[str]) -> UsageError:
    return UsageError(
        "address-malformed",
        f"'{shown_url(text)}' is not the address of a mirror: {why}",
        hint=f"write {_or(shapes)}",
    )


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
