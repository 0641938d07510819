"""Building: from a recipe to a tested image in an OCI layout with its report."""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.build.build_image import (
        architecture_to_run,
        assemble,
        build,
        build_parent,
        load_or_build,
        lock,
        smoke_image,
    )
    from pipeline.build.build_index import (
        IndexResult,
        RetestedImage,
        build_architectures,
        explain_package,
        lock_architectures,
        smoke_architectures,
    )
    from pipeline.build.build_report import build_report_json
    from pipeline.build.build_result import AssembledImage, BuildResult
    from pipeline.build.build_stages import template_variables

__all__ = [
    "AssembledImage",
    "BuildResult",
    "IndexResult",
    "RetestedImage",
    "architecture_to_run",
    "assemble",
    "build",
    "build_architectures",
    "build_parent",
    "build_report_json",
    "explain_package",
    "load_or_build",
    "lock",
    "lock_architectures",
    "smoke_architectures",
    "smoke_image",
    "template_variables",
]
