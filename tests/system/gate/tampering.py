"""Ways of spoiling what a build left, each with the refusal that it must meet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.digest import Digest, canonical_json
from pipeline.model.evidence import Evidence, evidence_json
from pipeline.oci import make_image, write_layout
from pipeline.store import Store
from tests.support.tested_images import about
from tests.system.gate.publishable import PublishableImages, keep

Tampering = Callable[[Path, Path, PublishableImages], None]
"""(layout, report's folder, images)."""

TAMPERINGS: dict[str, tuple[Tampering, int, str]] = {}
"""What is wrong → how it becomes so, the exit status, the code of the refusal."""


def tampering_case(what: str, code: str, status: int = 7) -> Callable[[Tampering], Tampering]:
    def take(spoil: Tampering) -> Tampering:
        TAMPERINGS[what] = (spoil, status, code)
        return spoil

    return take


def take_from(other: Path, *names: str) -> Callable[[Path], None]:
    def bring(report: Path) -> None:
        for name in names:
            shutil.copy(other / name, report / name)

    return bring


EVIDENCE = ("evidence.json", "evidence.seal")


@tampering_case("no evidence", "gate-report-missing")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    (report / "evidence.json").unlink()


@tampering_case("no seal", "gate-report-missing")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    (report / "evidence.seal").unlink()


@tampering_case("an empty seal", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    (report / "evidence.seal").write_text("")


@tampering_case("evidence of another image, with its seal", "gate-report-of-another-image")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    take_from(images.next.report_folder, *EVIDENCE)(report)


@tampering_case("evidence of another image that says it is of this one", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    assert images.next.evidence is not None
    (report / "evidence.json").write_bytes(evidence_json(about(images.next.evidence, images.good.image)))
    take_from(images.next.report_folder, "evidence.seal")(report)


@tampering_case("all of another image's report", "report-of-another-image", 5)
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    shutil.rmtree(report)
    shutil.copytree(images.next.report_folder, report)


@tampering_case("evidence on checks that ask less than the recipe, with its seal", "gate-other-checks")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    take_from(images.weak.report_folder, *EVIDENCE)(report)


@tampering_case("the record says that the recipe asks less", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    take_from(images.weak.report_folder, *EVIDENCE)(report)
    text = (report / "materials.json").read_text()
    (report / "materials.json").write_text(text.replace(str(images.good.record.checks), str(images.weak.record.checks)))


@tampering_case("what another image was made from, with its seal", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    spliced(report, images.next.report_folder, "materials.json")


@tampering_case("another image's SBOM, with its seal", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    spliced(report, images.next.report_folder, "sbom.spdx.json")


def spliced(report: Path, other: Path, name: str) -> None:
    take_from(other, name)(report)
    theirs = json.loads((other / "seals.json").read_bytes())
    ours = json.loads((report / "seals.json").read_bytes())
    (report / "seals.json").write_bytes(canonical_json(ours | {name: theirs[name]}))


@tampering_case("an edited SBOM", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    path = report / "sbom.cyclonedx.json"
    path.write_text(path.read_text().replace("small-base", "small-best"))


@tampering_case("a report that was made under another runtime", "gate-other-runtime")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    evidence = of(images)
    keep(report, replace(evidence, report=replace(evidence.report, runtime="runc 0.1")), images.store)


@tampering_case("evidence that names another runtime than its report", "gate-other-runtime")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    keep(report, replace(of(images), runtime="kata 3"), images.store)


def of(images: PublishableImages) -> Evidence:
    assert images.good.evidence is not None
    return images.good.evidence


@tampering_case("a bit flipped in the evidence", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    flip(report / "evidence.json")


@tampering_case("a bit flipped in the seal", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    flip(report / "evidence.seal", 5)


def flip(path: Path, at: int = -40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    # Layers are links into the store, whose files are not to be spoilt.
    path.unlink()
    path.write_bytes(data)


def answered_wrongly(images: PublishableImages) -> bytes:
    """The evidence with another answer than the check wants, and still said to have passed."""
    data = (images.good.report_folder / "evidence.json").read_text()
    assert data.count('"1.0 "') >= 1, data
    return data.replace('"1.0 "', '"9.9 "').encode()


@tampering_case("another answer", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    (report / "evidence.json").write_bytes(answered_wrongly(images))


@tampering_case("another answer, sealed with another store's key", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    keep(report, answered_wrongly(images), Store.open(report.parent / "other"))


@tampering_case("another answer, sealed with this store's key: answers are judged again", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    keep(report, answered_wrongly(images), images.store)


@tampering_case("the true evidence, sealed by another store", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    keep(report, of(images), Store.open(report.parent / "other"))


@tampering_case("a report that says itself that it failed", "gate-report-failed")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    evidence = of(images)
    (first, *rest) = evidence.report.instances
    checks = tuple(replace(one, passed=False) for one in first.checks)
    keep(
        report,
        replace(evidence, report=replace(evidence.report, instances=(replace(first, checks=checks), *rest))),
        images.store,
    )


@tampering_case("no evidence at all in the text", "gate-report-edited")
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    keep(report, b'{"schema":1,"passed":true}', images.store)


@tampering_case("a config with other bytes", "blob-damaged", 5)
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    place = blob(layout, images.good.image.config_descriptor.digest)
    place.write_bytes(place.read_bytes().replace(b"8080", b"8081"))


@tampering_case("a manifest with other bytes", "blob-damaged", 5)
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    place = blob(layout, images.good.image.digest)
    place.write_bytes(place.read_bytes().replace(b"1.0", b"1.1"))


@tampering_case("a whole image with another manifest", "report-of-another-image", 5)
def _(layout: Path, report: Path, images: PublishableImages) -> None:
    labels = (*images.good.image.config.labels, ("x", "y"))
    image = make_image("small", "1.0", replace(images.good.image.config, labels=labels), images.good.image.layers)
    shutil.rmtree(layout)
    write_layout(image, store=images.store, target=layout)


def blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / "sha256" / digest.hex
