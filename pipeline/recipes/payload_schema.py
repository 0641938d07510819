"""The key `payload-limits` of recipes and platforms."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.model.payload_limits import PAYLOAD_RATIO_DEFAULT, PAYLOAD_SIZE_DEFAULT, PayloadLimits
from pipeline.recipes.fields import Size, Strict

RATIO_MOST = 1_000_000


class PayloadLimitsDocument(Strict):
    """The bounds on what one package may unpack to.

    A package that exceeds one is refused before its payload is opened; nothing is decompressed beyond the sizes in its
    header. The ratio counts from 64 MiB on. A recipe's bounds go before its platform's.
    """

    size: Size | None = Field(
        default=None,
        description=f"bytes of all files of a package; default: {PAYLOAD_SIZE_DEFAULT >> 30}GiB",
        examples=["64GiB"],
    )
    ratio: Annotated[int, Field(ge=1, le=RATIO_MOST)] | None = Field(
        default=None,
        description=f"that size over the size of the package's file; default: {PAYLOAD_RATIO_DEFAULT}",
        examples=[1000],
    )

    @property
    def limits(self) -> PayloadLimits:
        """The bounds as the model has them."""
        return PayloadLimits(self.size, self.ratio)
