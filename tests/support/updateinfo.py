"""Writes updateinfo.xml for tests, as distributions write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr


@dataclass(frozen=True)
class Fixed:
    """A package of an advisory; `module` is `name:stream`."""

    name: str
    evr: str
    arch: str = "x86_64"
    module: str = ""


@dataclass(frozen=True)
class Update:
    """One advisory. `issued` is written as it stands here."""

    id: str
    fixed: tuple[Fixed, ...] = ()
    kind: str = "security"
    severity: str | None = "Important"
    title: str = ""
    issued: str = "2026-01-01 00:00:00"
    cves: tuple[str, ...] = ()
    more: str = field(default="", repr=False)
    """XML of further references."""


def updateinfo(*updates: Update) -> bytes:
    """The document."""
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n<updates>\n" + "".join(map(_update, updates)) + "</updates>\n"
    ).encode()


def _update(one: Update) -> str:
    severity = "" if one.severity is None else f"<severity>{escape(one.severity)}</severity>"
    references = "".join(f'<reference href="https://x.invalid" id={quoteattr(c)} type="cve"/>' for c in one.cves)
    modules = list(dict.fromkeys(package.module for package in one.fixed))
    collections = "".join(_collection([p for p in one.fixed if p.module == module], module) for module in modules)
    return (
        f'<update from="x@x.invalid" status="final" type={quoteattr(one.kind)} version="1"><id>{escape(one.id)}</id>'
        f"<title>{escape(one.title)}</title><issued date={quoteattr(one.issued)}/>{severity}"
        f"<description>No more &lt;holes&gt;.</description><references>{references}{one.more}</references>"
        f"<pkglist>{collections}</pkglist></update>\n"
    )


def _collection(fixed: Sequence[Fixed], module: str) -> str:
    name, _, stream = module.partition(":")
    head = (
        f'<module name={quoteattr(name)} stream={quoteattr(stream)} version="1" context="c0" arch="x86_64"/>'
        if module
        else ""
    )
    return f'<collection short="c"><name>c</name>{head}{"".join(map(_package, fixed))}</collection>'


def _package(one: Fixed) -> str:
    epoch, _, rest = one.evr.rpartition(":")
    version, _, release = rest.partition("-")
    return (
        f'<package name={quoteattr(one.name)} version="{version}" release="{release}" epoch="{epoch or "0"}" '
        f'arch="{one.arch}"><filename>{escape(one.name)}-{version}-{release}.{one.arch}.rpm</filename></package>'
    )
