"""Keep pydantic from searching all that is installed for plugins.

None may have a say in what a recipe means. The variable that pydantic has for this does so, but what searches is loaded
all the same, with e-mail, sockets and archives: a tenth of the time that reading a recipe takes.
"""

import importlib
import os
import sys
from types import ModuleType

_LOADER = "pydantic.plugin._loader"


class _NoPlugins(ModuleType):
    """Stands for the module of pydantic that loads plugins, and has none.

    Where anything else is asked of it, the module itself is loaded.
    """

    @staticmethod
    def get_plugins() -> tuple[()]:
        """Return no plugins."""
        return ()

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        sys.modules.pop(_LOADER, None)
        return getattr(importlib.import_module(_LOADER), name)


def refuse_plugins() -> None:
    """Have pydantic load no plugins in this process, and none in its children."""
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
    sys.modules.setdefault(_LOADER, _NoPlugins(_LOADER))
