"""The `Executor` of a Dask cluster, and its workers.

Importing it needs `distributed`, which a plain installation lacks.
"""

from pipeline.errors import EnvironmentLacking

try:
    import distributed as distributed
except ImportError as missing:
    raise EnvironmentLacking(
        "cluster-missing",
        f"the cluster executor needs dask and distributed ({missing})",
        hint="install the extra 'cluster' as relbuild was installed: pip install 'relbuild[cluster]', pipx or uv tool "
        "install --force 'relbuild[cluster]', a wheel as './relbuild-….whl[cluster]', or `ci/setup` in a checkout",
    ) from missing
