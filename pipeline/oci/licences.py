"""Parse an RPM header's License tag as an SPDX expression, or name it as our own licence.

The expressions are those of SPDX 2.3, annex D. Distributions moved to SPDX's names some years ago; older or other
packages say `GPLv2+` or `See COPYING`. Such a tag is kept as it is, as a licence with a name of our own; nothing is
guessed.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache, lru_cache

from license_expression import LicenseExpression, LicenseSymbol, Licensing
from spdx_tools.common.spdx_licensing import spdx_licensing

LICENCE_LIMIT = 4096
"""Characters of a tag that are parsed: Fedora's longest (of texlive) has about two thousand."""

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
"""A distribution's name of a licence that is not in SPDX's list, such as `LicenseRef-Fedora-Public-Domain`."""


@cache
def _licensing() -> Licensing:
    """Return the library's SPDX list without the names that its makers added.

    Their aliases would turn a distribution's `LicenseRef-` into another licence.
    """
    return Licensing(
        [
            LicenseSymbol(
                symbol.key,
                aliases=tuple(alias for alias in symbol.aliases if not _REFERENCE.fullmatch(alias)),
                is_exception=symbol.is_exception,
            )
            for key, symbol in sorted(spdx_licensing.known_symbols.items())
            if not _REFERENCE.fullmatch(key)
        ]
    )


@lru_cache(maxsize=4096)
def licence_expression(tag: str) -> LicenseExpression | None:
    """Parse a tag as an SPDX expression (may contain `LicenseRef-…`); None if it is not one."""
    if not tag.strip() or len(tag) > LICENCE_LIMIT:
        return None
    try:
        parsed = _licensing().parse(tag, strict=True)
        unknown = _licensing().unknown_license_keys(parsed)
    except Exception:  # For malformed expressions, the library raises its own errors, assertions and others.
        return None
    return parsed if all(_REFERENCE.fullmatch(key) for key in unknown) else None


def licence_references(tag: str) -> tuple[str, ...]:
    """Return the `LicenseRef-…` in a tag that is an expression, sorted."""
    parsed = licence_expression(tag)
    return () if parsed is None else tuple(sorted(_licensing().unknown_license_keys(parsed)))


def own_licence(tag: str) -> LicenseExpression:
    """Make our own `LicenseRef-` licence, named by the tag's digest, for other tags."""
    return _licensing().parse(f"LicenseRef-relbuild-{hashlib.sha256(tag.encode()).hexdigest()[:16]}")
