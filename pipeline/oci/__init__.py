"""OCI images (image-spec 1.1): from layers to manifest and config, to a layout or an archive on disk, and back.

Everything is derived from an image's values, and `validate` trusts none of it: it recomputes every digest,
size and diff_id and reports all that does not match.
"""

from pipeline.oci import media_types
from pipeline.oci.adoption import adopt_layout
from pipeline.oci.archive import ArchiveKind, write_archive
from pipeline.oci.image import make_image, make_index, parse_config, parse_image, parse_index, timestamp
from pipeline.oci.layout import blob_path, index_bytes, read_layout, write_layout
from pipeline.oci.validation import validate

__all__ = [
    "ArchiveKind",
    "adopt_layout",
    "blob_path",
    "index_bytes",
    "make_image",
    "make_index",
    "media_types",
    "parse_config",
    "parse_image",
    "parse_index",
    "read_layout",
    "timestamp",
    "validate",
    "write_archive",
    "write_layout",
]
