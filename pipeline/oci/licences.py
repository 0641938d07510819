"""Convert an RPM header's License tag into an SPDX licence expression, where it is one.

The expressions are those of SPDX 2.3, annex D.

Distributions moved to SPDX's names some years ago; what was packaged before, or by others, says `GPLv2+` or
`See COPYING`. That is kept as it is written, as a licence of a name of our own, and nothing is guessed.
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
"""A licence that is in no list and that a distribution gives a name, as `LicenseRef-Fedora-Public-Domain`."""


@cache
def _licensing() -> Licensing:
    """Return the library's SPDX list without what its makers added to it.

    They added names of their own, and other names that they take for a licence of the list, so that a distribution's
    `LicenseRef-` became another one.
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
    """Parse a tag as an SPDX expression; None if it is none.

    An empty tag is none. The expression may hold `LicenseRef-…`.
    """
    if not tag.strip() or len(tag) > LICENCE_LIMIT:
        return None
    try:
        parsed = _licensing().parse(tag, strict=True)
        unknown = _licensing().unknown_license_keys(parsed)
    except Exception:  # Of what is no expression the library raises its own error, assertions and others.
        return None
    return parsed if all(_REFERENCE.fullmatch(key) for key in unknown) else None


def licence_references(tag: str) -> tuple[str, ...]:
    """The `LicenseRef-…` in a tag that is an expression, sorted."""
    parsed = licence_expression(tag)
    return () if parsed is None else tuple(sorted(_licensing().unknown_license_keys(parsed)))


def own_licence(tag: str) -> LicenseExpression:
    """Make a `LicenseRef-` licence for a tag that is no SPDX expression.

    It is a licence of our own, named by a digest of the tag's text.
    """
    return _licensing().parse(f"LicenseRef-relbuild-{hashlib.sha256(tag.encode()).hexdigest()[:16]}")
