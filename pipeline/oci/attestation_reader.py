"""Parse an image's packages from its CycloneDX SBOM, its platform from SLSA provenance."""

from __future__ import annotations

from packageurl import PackageURL

from pipeline.errors import VerificationError
from pipeline.model.advisory import ImagePackage
from pipeline.oci.image_manifest import JsonReader

LISTED_PACKAGES_MOST = 100_000
"""Components in a document: more than the largest distribution has packages."""

_PROPERTY = "relbuild:"


def listed_packages(document: bytes, place: str) -> tuple[ImagePackage, ...]:
    """Return the RPMs in a CycloneDX document, sorted.

    Raises VerificationError `document-malformed`, also for an RPM without complete identification.
    """
    components = JsonReader.parse(document, place).get("components").items()
    if len(components) > LISTED_PACKAGES_MOST:
        raise _malformed(f"lists more than {LISTED_PACKAGES_MOST} components", place)
    found = []
    for component in components:
        url = component.get("purl").text("")
        if not url.startswith("pkg:rpm/"):
            continue
        try:
            said = PackageURL.from_string(url)
        except ValueError as error:
            raise _malformed(f"has the invalid package URL '{url[:200]}'", place) from error
        qualifiers = said.qualifiers if isinstance(said.qualifiers, dict) else {}
        arch = str(qualifiers.get("arch", ""))
        if not arch:
            raise _malformed(f"has no architecture for '{url[:200]}'", place)
        properties = {
            one.get("name").text(""): one.get("value").text("") for one in component.get("properties").items()
        }
        try:
            package = ImagePackage.of(
                component.get("name").text(),
                component.get("version").text(""),
                arch,
                properties.get(f"{_PROPERTY}source-rpm", str(qualifiers.get("upstream", ""))),
                properties.get(f"{_PROPERTY}repository", ""),
            )
        except ValueError as error:
            raise _malformed(f"has an invalid package '{url[:200]}': {error}", place) from error
        found.append(package)
    return tuple(sorted(found, key=lambda one: one.nevra))


def built_for(predicate: bytes, place: str) -> tuple[str, str]:
    """Return the platform and RPM architecture of an image's build, from its SLSA predicate.

    Raises VerificationError `document-malformed`.
    """
    parameters = JsonReader.parse(predicate, place).get("buildDefinition").get("externalParameters")
    return parameters.get("platform").text(), parameters.get("architecture").text()


def _malformed(what: str, place: str) -> VerificationError:
    return VerificationError("document-malformed", f"{place} {what}", place=place)
