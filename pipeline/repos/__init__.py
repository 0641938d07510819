"""RPM repositories: open them by verified metadata, and fetch metadata and packages.

A repository is opened by finding a mirror whose repomd.xml is allowed by metalink, signature and history; all other
bytes are verified by checksums from there. Metadata is decompressed here, bounded by the sizes in repomd.xml, and kept
in the store, also for offline use; nothing is parsed before it is verified.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.repos.advisories import read_advisories
    from pipeline.repos.comps import GroupPackage, PackageGroups, read_groups
    from pipeline.repos.detached_signature import verify_detached
    from pipeline.repos.metadata import metadata_file, metadata_pieces
    from pipeline.repos.openpgp_keys import (
        RepositoryKey,
        counting_certificates,
        load_keys,
        read_keys,
    )
    from pipeline.repos.repository import (
        LOCAL_REPOSITORY,
        OpenRepository,
        fetch_packages,
        open_repositories,
    )
    from pipeline.repos.repository_changes import CHANGED_CODES, indexes_changed, still_changing_error
    from pipeline.repos.source_packages import find_source_packages
    from pipeline.repos.variables import expand_environment

__all__ = [
    "CHANGED_CODES",
    "LOCAL_REPOSITORY",
    "GroupPackage",
    "OpenRepository",
    "PackageGroups",
    "RepositoryKey",
    "counting_certificates",
    "expand_environment",
    "fetch_packages",
    "find_source_packages",
    "indexes_changed",
    "load_keys",
    "metadata_file",
    "metadata_pieces",
    "open_repositories",
    "read_advisories",
    "read_groups",
    "read_keys",
    "still_changing_error",
    "verify_detached",
]
