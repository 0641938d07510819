"""rpm's own library, loaded."""

import signal

# The `rpm` of a virtual environment is a shim that asks the system's interpreters where rpm's library is. They stand in
# the terminal's process group, and Ctrl-C would have each print where it was.
_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
try:
    import rpm
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before)

# rpm quotes packages to standard error as they are. What matters of that is in the errors that relbuild raises, which
# are escaped where they are shown; rpm's critical messages, with which it ends the process, quote nothing.
rpm.setVerbosity(rpm.RPMLOG_CRIT)

__all__ = ["rpm"]
