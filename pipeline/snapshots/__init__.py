"""Files, the program and its process as they are now, to be compared later."""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.snapshots.file_snapshot import (
        file_stamp,
        look_at_file,
        look_at_names,
        look_at_output,
        look_at_path,
    )
    from pipeline.snapshots.process_snapshot import (
        IGNORED_VARIABLES,
        LIFETIME,
        process_inputs,
    )
    from pipeline.snapshots.program_files import (
        CODE,
        START,
        ProgramStamps,
        library_records,
        loaded_files,
        mapped_files,
        own_files_digest,
        process_started,
        program_digest,
    )

__all__ = [
    "CODE",
    "IGNORED_VARIABLES",
    "LIFETIME",
    "START",
    "ProgramStamps",
    "file_stamp",
    "library_records",
    "loaded_files",
    "look_at_file",
    "look_at_names",
    "look_at_output",
    "look_at_path",
    "mapped_files",
    "own_files_digest",
    "process_inputs",
    "process_started",
    "program_digest",
]
