"""RPM packages: verify signatures, read headers and payloads, read and write rpm databases.

Nothing in a package is trusted before its signature is verified. `verify_package` checks that the header is signed by
one of the given keys and that the compressed payload has the digest in the signed header (or, where a repository
accepts packages from before rpm 4.14, that one signature covers both); only then do `read_header`, `read_payload` and
`read_payload_files` open it, and each file's bytes are still compared with the digest in the header. The only door to
rpm.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.packages.changelog import named_fixes, read_change_days, read_changelog
    from pipeline.packages.lua import lua_command, lua_runtime
    from pipeline.packages.package_errors import errors_about
    from pipeline.packages.package_signature import unreadable_keys, verify_package
    from pipeline.packages.payload import PayloadFile, read_payload, read_payload_files
    from pipeline.packages.payload_hash import PayloadHash
    from pipeline.packages.rpm_header import read_header, read_source_nevra
    from pipeline.packages.rpm_library import library_origin
    from pipeline.packages.rpmdb_conversion import database_file_names
    from pipeline.packages.rpmdb_reader import DATABASE_LIMIT, Installed, read_installed
    from pipeline.packages.rpmdb_union import all_changelogs, read_all_installed, require_database_size
    from pipeline.packages.rpmdb_writer import DatabaseRecord, write_database
    from pipeline.packages.versions import compare_evr, library_files, library_version

__all__ = [
    "DATABASE_LIMIT",
    "DatabaseRecord",
    "Installed",
    "PayloadFile",
    "PayloadHash",
    "all_changelogs",
    "compare_evr",
    "database_file_names",
    "errors_about",
    "library_files",
    "library_origin",
    "library_version",
    "lua_command",
    "lua_runtime",
    "named_fixes",
    "read_all_installed",
    "read_change_days",
    "read_changelog",
    "read_header",
    "read_installed",
    "read_payload",
    "read_payload_files",
    "read_source_nevra",
    "require_database_size",
    "unreadable_keys",
    "verify_package",
    "write_database",
]
