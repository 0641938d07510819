"""Run scriptlets without privileges: traced, on a tree with a table of owners and modes.

Where there is neither root nor a user namespace, no file can be given another owner, and no directory can become the
root of a process. So a tracer (ptrace(2)) executes the system calls that name files, owners, modes, attributes or
accounts itself, as they would have been executed for the root of a container; all other calls are the kernel's own.
"""
