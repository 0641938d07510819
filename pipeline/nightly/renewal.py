"""Renewal of what is signed of the products' tags, before it is too old to be believed.

A night renews it, also one without changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import RelbuildError
from pipeline.gather import Workshop
from pipeline.mirror.protocol import Mirror
from pipeline.model.night import Product
from pipeline.nightly.renewal_due import due, remember_due
from pipeline.nightly.working import Making, signing_key
from pipeline.oci import SigningKey
from pipeline.progress import task
from pipeline.release.renew import renew


def renew_tags(products: Sequence[Product], making: Making, mirror: Mirror | None, workshop: Workshop) -> None:
    """Renew what is due of products that stand on the mirror.

    What cannot be is warned of: the next night does it.
    """
    destination, now = str(making.to), int(workshop.clock() * 1000)
    standing = {product.name: product for product in products if product.published.digest is not None}
    waiting = due(workshop.store, destination, standing, now)
    if not waiting or mirror is None or making.key is None:
        return
    with task(workshop.progress, "sign", f"tags of {len(waiting)} products"):
        try:
            key = signing_key(making, workshop.progress)
        except RelbuildError as error:
            workshop.progress.warn(f"signed moves of tags were not renewed: {error}")
            return
        for name in waiting:
            try:
                _renew(standing[name], key, making, mirror, workshop)
            except RelbuildError as error:
                workshop.progress.warn(f"{name}: the signed moves of its tags were not renewed: {error}")


def _renew(product: Product, key: SigningKey, making: Making, mirror: Mirror, workshop: Workshop) -> None:
    assert product.published.digest is not None
    own = dict.fromkeys(product.published.tags, product.published.digest)
    with mirror.writing():
        done = renew(mirror.repository(product.name), key, making.rules, workshop, own)
    if done.left:
        workshop.progress.warn(
            f"{product.name}: tags not at their signed target and not renewed: {', '.join(done.left)}; "
            "`relbuild verify` shows what is wrong, `relbuild promote` of the right image fixes it"
        )
    remember_due(workshop.store, str(making.to), product.name, done.due)
