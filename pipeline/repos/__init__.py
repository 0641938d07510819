"""RPM repositories: where they are, what they offer today, and why that can be believed.

A repository is opened by finding a mirror whose repomd.xml is the one that metalink, signature and history
allow; from there on every byte is named by a checksum. Metadata is decompressed here, bounded by what
repomd.xml states, and kept in the store; nothing is parsed before it is verified. What cannot be had offline
was kept the last time.
"""

from pipeline.repos.advisories import read_advisories
from pipeline.repos.detached_signature import verify_detached
from pipeline.repos.metadata import metadata_file
from pipeline.repos.openpgp_keys import (
    RepositoryKey,
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
    "OpenRepository",
    "RepositoryKey",
    "expand_environment",
    "fetch_packages",
    "find_source_packages",
    "indexes_changed",
    "load_keys",
    "metadata_file",
    "open_repositories",
    "read_advisories",
    "read_keys",
    "still_changing_error",
    "verify_detached",
]
