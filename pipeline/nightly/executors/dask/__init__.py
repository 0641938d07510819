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
        hint="pip install 'relbuild[cluster]'",
    ) from missing
