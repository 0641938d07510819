"""Renew products' signed tag statements on the mirror before they expire.

Every night does it, also one without changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.model.night_record import Product
from pipeline.nightly.inputs_record import attested_inputs, record_predicate
from pipeline.nightly.job import RunSettings, signed_by_present_key
from pipeline.nightly.night_key import load_night_key
from pipeline.nightly.renewal_due import products_due, remember_due
from pipeline.oci import SigningKey
from pipeline.oci.predicates import LOCK
from pipeline.prepare import BuildEnvironment
from pipeline.progress import task
from pipeline.release.renew import renew


def renew_tags(
    products: Sequence[Product], settings: RunSettings, mirror: Mirror | None, build_env: BuildEnvironment
) -> None:
    """Renew the tag statements of published products that are due.

    A failure is a warning: the next night tries again.
    """
    destination, now = str(settings.to), int(build_env.clock() * 1000)
    on_mirror = {product.name: product for product in products if product.published.digest is not None}
    waiting = products_due(build_env.store, destination, on_mirror, now, key=settings.signers)
    if not waiting or mirror is None or settings.key is None:
        return
    with task(build_env.progress, "sign", f"tags of {len(waiting)} products"):
        try:
            key = load_night_key(settings, build_env.progress)
        except RelbuildError as error:
            build_env.progress.warn(f"signed moves of tags were not renewed: {error}")
            return
        for name in waiting:
            try:
                _renew(on_mirror[name], key, settings, mirror, build_env)
            except RelbuildError as error:
                build_env.progress.warn(f"{name}: the signed moves of its tags were not renewed: {error}")


def _renew(
    product: Product, key: SigningKey, settings: RunSettings, mirror: Mirror, build_env: BuildEnvironment
) -> None:
    assert product.published.digest is not None
    own = dict.fromkeys(product.published.tags, product.published.digest)
    repository = mirror.repository(product.name)

    def record_of(image: Digest) -> Mapping[str, bytes]:
        return _record_again(repository, image, key, settings, build_env)

    with mirror.writing():
        done = renew(repository, key, settings.rules, build_env, own, former=settings.former, also=record_of)
    for tag, error in done.failed.items():
        build_env.progress.warn(f"{product.name}: the signed move of tag '{tag}' was not renewed: {error}")
    left = [tag for tag in done.left if tag not in done.other_keys]
    if left:
        build_env.progress.warn(
            f"{product.name}: tags not at their signed target and not renewed: {', '.join(left)}; "
            "`relbuild verify` shows what is wrong, `relbuild promote` of the right image fixes it"
        )
    for other in sorted(set(done.other_keys.values())):
        tags = ", ".join(tag for tag, named in done.other_keys.items() if named == other)
        build_env.progress.warn(
            f"{product.name}: tags not signed by this night's key and not renewed: {tags}; what is there names the key "
            f"{other.short}, unverified. `relbuild promote` signs them with this key: see 'Changing the key' in "
            "docs/mirrors.md"
        )
    remember_due(build_env.store, str(settings.to), product.name, done.due, key=settings.signers)


def _record_again(
    repository: Repository, image: Digest, key: SigningKey, settings: RunSettings, build_env: BuildEnvironment
) -> Mapping[str, bytes]:
    """Return the record that only a former key attests of an image, as a predicate to attest.

    So a night that knows the image from the mirror alone does not build it again. No predicate if there is none.
    """
    if attested_inputs(repository, image, key.public, build_env.progress.warn) is not None:
        return {}
    trusted = replace(key.public, former=settings.former)
    record = attested_inputs(repository, image, trusted, build_env.progress.warn)
    return {} if record is None else {LOCK: record_predicate(signed_by_present_key(record, settings))}
