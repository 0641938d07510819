"""Steps from a recipe to its packages: resolve or lock, fetch, verify, number owners.

`pipeline.build.build_image.lock` has them in their order.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.prepare.build_options import BuildEnvironment, BuildOptions
    from pipeline.prepare.built_parent import as_parent
    from pipeline.prepare.locked_packages import locked_packages
    from pipeline.prepare.locked_recipe import (
        LockedRecipe,
        LockPlan,
        fetch_and_verify,
        group_layers,
        keep_lock,
        number_owners,
        plan_lock,
        resolve,
        retry_if_changed,
    )
    from pipeline.prepare.source_rpms import obtain_sources
    from pipeline.prepare.verified_packages import obtain_files

__all__ = [
    "BuildEnvironment",
    "BuildOptions",
    "LockPlan",
    "LockedRecipe",
    "as_parent",
    "fetch_and_verify",
    "group_layers",
    "keep_lock",
    "locked_packages",
    "number_owners",
    "obtain_files",
    "obtain_sources",
    "plan_lock",
    "resolve",
    "retry_if_changed",
]
