"""Resolution of packages by libsolv, and the lock that records it. Door to `solv`.

All requests of a recipe are solved at once, as `dnf install --best` would into an empty root; each package
then belongs to the lowest layer whose requests reach it and carries the reasons for which it is there. The
result is a section of the lock beside the recipe, which is used for as long as nothing that it depends on has
changed: given a fresh lock, no repository is opened.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.model.lock import LockMode
    from pipeline.resolve.auto_layers import (
        BlockPackage,
        FormerLayers,
        assign_auto_layers,
        auto_layer_names,
        block_package,
        former_layers,
        image_layers,
    )
    from pipeline.resolve.explain import explain
    from pipeline.resolve.fixes import (
        RepositoryAdvisories,
        fixes_taken,
        full_nevra,
        missing_fixes,
        read_repository_advisories,
        streams_in_use,
    )
    from pipeline.resolve.library_versions import library_versions
    from pipeline.resolve.lock_update import put_sections
    from pipeline.resolve.lockfile import format_lock, is_lock, lock_path, parse_lock, read_lock, write_lock
    from pipeline.resolve.pool import PackagePool
    from pipeline.resolve.solver import open_pool, solve
    from pipeline.resolve.staleness import (
        LockAction,
        LockState,
        compare_sections,
        decide_action,
        other_versions,
        resolution_inputs,
        stale_reasons,
    )

__all__ = [
    "BlockPackage",
    "FormerLayers",
    "LockAction",
    "LockMode",
    "LockState",
    "PackagePool",
    "RepositoryAdvisories",
    "assign_auto_layers",
    "auto_layer_names",
    "block_package",
    "compare_sections",
    "decide_action",
    "explain",
    "fixes_taken",
    "format_lock",
    "former_layers",
    "full_nevra",
    "image_layers",
    "is_lock",
    "library_versions",
    "lock_path",
    "missing_fixes",
    "open_pool",
    "other_versions",
    "parse_lock",
    "put_sections",
    "read_lock",
    "read_repository_advisories",
    "resolution_inputs",
    "solve",
    "stale_reasons",
    "streams_in_use",
    "write_lock",
]
