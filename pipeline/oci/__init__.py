"""OCI images: manifests, layouts, archives, signatures, attestations, SBOMs.

An image is made from layers and a configuration, written to a layout or archive on disk, and read back. `validation`
trusts nothing: it recomputes every digest, size and diff_id and reports all mismatches.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.oci import media_types, predicates
    from pipeline.oci.archive import write_archive
    from pipeline.oci.artifacts import ArtifactManifest, make_referrer, read_artifact
    from pipeline.oci.config_settings import flatten_config
    from pipeline.oci.image_choice import choose_image, image_architecture
    from pipeline.oci.image_layout import (
        blob_path,
        has_attachments,
        index_bytes,
        read_layout,
        read_layout_images,
        read_layout_index,
        write_index_layout,
        write_layout,
        writing_layout,
    )
    from pipeline.oci.image_manifest import (
        end_of_life,
        make_image,
        make_index,
        parse_config,
        parse_image,
        parse_index,
        timestamp,
    )
    from pipeline.oci.layout_place import refuse_other_product, refuse_other_report, require_layout_place
    from pipeline.oci.listed_attestation import make_listed_attestation, proves_itself
    from pipeline.oci.load_layout import damaged_layers, load_layers, load_layout_image
    from pipeline.oci.signing_keys import (
        SigningKey,
        VerifyingKey,
        generate_key,
        load_signing_key,
        load_verifying_key,
    )
    from pipeline.oci.sigstore_bundle import (
        PREDICATE_TYPE_ANNOTATION,
        bundle_layer,
        make_attestation,
        named_key,
        remade_attestation,
        unverified_statement,
        verify_bundle,
    )
    from pipeline.oci.simple_signing import (
        SimpleSignature,
        check_signatures,
        join_signatures,
        make_simple_signature,
        signature_blobs,
        signature_payload,
        signature_tag,
        verify_signatures,
    )
    from pipeline.oci.statements import Statement, StatementSubject, provenance_predicate, read_attested_build
    from pipeline.oci.validation import validate_layout

__all__ = [
    "PREDICATE_TYPE_ANNOTATION",
    "ArtifactManifest",
    "SigningKey",
    "SimpleSignature",
    "Statement",
    "StatementSubject",
    "VerifyingKey",
    "blob_path",
    "bundle_layer",
    "check_signatures",
    "choose_image",
    "damaged_layers",
    "end_of_life",
    "flatten_config",
    "generate_key",
    "has_attachments",
    "image_architecture",
    "index_bytes",
    "join_signatures",
    "load_layers",
    "load_layout_image",
    "load_signing_key",
    "load_verifying_key",
    "make_attestation",
    "make_image",
    "make_index",
    "make_listed_attestation",
    "make_referrer",
    "make_simple_signature",
    "media_types",
    "named_key",
    "parse_config",
    "parse_image",
    "parse_index",
    "predicates",
    "provenance_predicate",
    "proves_itself",
    "read_artifact",
    "read_attested_build",
    "read_layout",
    "read_layout_images",
    "read_layout_index",
    "refuse_other_product",
    "refuse_other_report",
    "remade_attestation",
    "require_layout_place",
    "signature_blobs",
    "signature_payload",
    "signature_tag",
    "timestamp",
    "unverified_statement",
    "validate_layout",
    "verify_bundle",
    "verify_signatures",
    "write_archive",
    "write_index_layout",
    "write_layout",
    "writing_layout",
]
