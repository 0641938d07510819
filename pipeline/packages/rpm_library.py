"""Import of rpm's Python bindings, with signals blocked and its log silenced."""

import importlib.util
import signal
import site
import sys
from pathlib import Path


def _load_system_bindings() -> None:
    """Import `rpm` from the base interpreter of a virtual environment, if it is installed there.

    The `rpm` of a virtual environment is a shim that starts the system's interpreters to ask each where rpm's library
    is. That takes longer than loading it, for every command, and is left for other systems.
    """
    if sys.prefix == sys.base_prefix or "rpm" in sys.modules:
        return
    for folder in site.getsitepackages([sys.base_prefix]):
        package = Path(folder, "rpm")
        if any(package.glob("_rpm*")):
            try:
                _load_package("rpm", package)
            except ImportError:  # Built for another interpreter.
                for name in [name for name in sys.modules if name.partition(".")[0] == "rpm"]:
                    del sys.modules[name]
            else:
                return


def _load_package(name: str, folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(name, name=name, path=str(folder))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


_load_system_bindings()

# The interpreters that the shim starts are in the terminal's process group, and would print a traceback at Ctrl-C.
_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
try:
    import rpm
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before)

# rpm quotes packages to standard error as they are. What matters of that is in the errors that relbuild raises, which
# are escaped where they are shown; rpm's critical messages, with which it ends the process, quote nothing.
rpm.setVerbosity(rpm.RPMLOG_CRIT)

__all__ = ["rpm"]
