"""The operations of publishing: publish, verify, copy, promote, roll back, tell the history.

What was tested here goes to a mirror; what is on a mirror is verified, carried on, promoted, rolled back, and its
history told. Start reading at `publish`.

Whatever moves a tag here has what the gate cleared: from the evidence that this machine sealed when it tested the
image, or from the evidence that the keeper's key attests on the mirror.
"""

from pipeline.release.auditing import (
    Audit,
    AuditedImage,
    AuditOrder,
    Contents,
    audit,
    audited,
    open_bulletin,
    read_contents,
    require_below,
)
from pipeline.release.compare import compare
from pipeline.release.copy import Copied, copy
from pipeline.release.history import Step, history
from pipeline.release.look import attested_sbom, look_at, validate_held
from pipeline.release.move import Moved, promote, rollback
from pipeline.release.prune import prune, undo_pruning
from pipeline.release.publish import PublishOrder, publish
from pipeline.release.scrub import scrub
from pipeline.release.serving import refuse_untested
from pipeline.release.verify import verify

__all__ = [
    "Audit",
    "AuditOrder",
    "AuditedImage",
    "Contents",
    "Copied",
    "Moved",
    "PublishOrder",
    "Step",
    "attested_sbom",
    "audit",
    "audited",
    "compare",
    "copy",
    "history",
    "look_at",
    "open_bulletin",
    "promote",
    "prune",
    "publish",
    "read_contents",
    "refuse_untested",
    "require_below",
    "rollback",
    "scrub",
    "undo_pruning",
    "validate_held",
    "verify",
]
