"""Operations on published images: publish, verify, copy, promote, roll back, prune, audit.

Start reading at `publish`.

Tags are only moved to images that the gate cleared: by the evidence that this machine sealed when it tested the image,
or by the evidence on the mirror that is attested by the operator's key.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.release.compare import compare_images
    from pipeline.release.copy import CopyResult, copy
    from pipeline.release.image_audit import (
        Audit,
        AuditedContents,
        AuditedImage,
        AuditOptions,
        audit,
        audit_image,
        open_bulletin,
        read_audited_contents,
        require_below,
    )
    from pipeline.release.inspect_reference import attested_sbom, inspect_reference, validate_reference
    from pipeline.release.move import MoveResult, promote, rollback
    from pipeline.release.prune import prune, undo_pruning
    from pipeline.release.publish import PublishOptions, publish
    from pipeline.release.pull_image import PulledImage, open_image_files, pull_image
    from pipeline.release.rules_file import rules_for
    from pipeline.release.scrub_mirror import scrub
    from pipeline.release.serve_gate import refuse_untested
    from pipeline.release.tag_changes import HistoryStep, history
    from pipeline.release.verify_reference import verify_reference

__all__ = [
    "Audit",
    "AuditOptions",
    "AuditedContents",
    "AuditedImage",
    "CopyResult",
    "HistoryStep",
    "MoveResult",
    "PublishOptions",
    "PulledImage",
    "attested_sbom",
    "audit",
    "audit_image",
    "compare_images",
    "copy",
    "history",
    "inspect_reference",
    "open_bulletin",
    "open_image_files",
    "promote",
    "prune",
    "publish",
    "pull_image",
    "read_audited_contents",
    "refuse_untested",
    "require_below",
    "rollback",
    "rules_for",
    "scrub",
    "undo_pruning",
    "validate_reference",
    "verify_reference",
]
