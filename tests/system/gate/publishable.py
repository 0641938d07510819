"""What there is to publish, and what is wrong with some of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.build import BuildResult
from pipeline.model.evidence import Evidence, evidence_json
from pipeline.oci import make_image, media_types, write_layout
from pipeline.reports import report_documents, seal_documents
from pipeline.store import Store
from tests.support.mirror_operator import MirrorOperator, tags_of
from tests.support.tested_images import about


@dataclass(frozen=True, slots=True)
class PublishableImages:
    """What there is to publish: `good` passed its checks; `weak` is the same image with checks that ask less; `next` is
    the next version; `failed` did not pass; `arm` is `good` as if for another architecture, tested too."""

    operator: MirrorOperator
    good: BuildResult
    weak: BuildResult
    next: BuildResult
    failed: BuildResult
    arm: Path

    @property
    def store(self) -> Store:
        return self.operator.products.build_env.store


def other_architecture(it: MirrorOperator, built: BuildResult, version: str = "1.0") -> Path:
    """The layout of an image that is the same for another architecture, with a report as its own machine would have
    left it in this store."""
    labels = tuple((key, version if key == media_types.VERSION else value) for key, value in built.image.config.labels)
    config = replace(built.image.config, architecture="arm64", labels=labels)
    image = make_image(built.image.name, version, config, built.image.layers)
    layout = built.layout.parent / f"arm-{version}" / image.name
    store = it.products.build_env.store
    write_layout(image, store=store, target=layout)
    bill = replace(built.bill, digest=image.digest, config=image.config_descriptor.digest, architecture="arm64")
    record = replace(built.record, image=image.digest)
    folder = layout.parent / f"{layout.name}.report"
    folder.mkdir()
    documents = report_documents(replace(bill, version=version), record, store=store)
    for name, data in documents:
        (folder / name).write_bytes(data)
    seal_documents(folder, image.digest, documents, store)
    assert built.evidence is not None
    keep(folder, about(built.evidence, image), store)
    return layout


def keep(folder: Path, evidence: Evidence | bytes, store: Store) -> None:
    """Evidence with a seal that fits."""
    data = evidence if isinstance(evidence, bytes) else evidence_json(evidence)
    (folder / "evidence.json").write_bytes(data)
    (folder / "evidence.seal").write_text(store.seal(data))


def all_tags(mirrors: dict[str, str]) -> dict[str, dict[str, set[str]]]:
    return {kind: tags_of(address) for kind, address in mirrors.items()}
