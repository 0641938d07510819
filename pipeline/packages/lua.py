"""Copy the host's rpm into a runtime folder, to run `-p <lua>` scriptlets in any image.

`-p <lua>` scriptlets run inside rpm itself, and an image need not hold rpm.

The host's rpm with its ELF closure and its configuration is copied into a folder that can be bound into any
root file system and started there through its own dynamic linker, whatever libc the image has.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.digest import Digest, digest_file, identity
from pipeline.errors import EnvironmentLacking
from pipeline.process import find_program, run
from pipeline.store import Store
from pipeline.store.tree_seals import TREE_ROOT

_FORMAT = 1
_CONFIGURATION = Path("/usr/lib/rpm")
_CONFIGURATION_FILES = ("rpmrc", "macros")
_SECONDS = 30.0

_PROGRAM = """\
local read = function() return io.read("l") end
local own = setmetatable({input = read}, {__index = rpm})
local seen = setmetatable({arg = {ARGUMENTS}, rpm = own}, {__index = _G})
seen._G = seen
local chunk, problem = loadfile("SCRIPT", "t", seen)
if not chunk then error(problem, 0) end
chunk()
"""


def lua_runtime(store: Store) -> Path:
    """Return a folder with rpm and all that it needs, made once per version of the host's rpm.

    Raises EnvironmentLacking `rpm-missing`.
    """
    rpm = find_program("rpm")
    if rpm is None:
        raise EnvironmentLacking(
            "rpm-missing",
            "the program 'rpm' was not found in PATH",
            hint="install rpm (Debian and Fedora: the package 'rpm')",
        )
    rpm = rpm.resolve()
    objects = _closure(rpm)
    name = identity("lua-runtime", _FORMAT, files=[str(digest_file(path)) for path in (rpm, *objects.values())])
    known = f"lua-{name.hex[:24]}"
    with store.locked(known):
        kept = store.kept_tree(known)
        if kept is not None:
            return kept / TREE_ROOT
        with store.temporary("lua") as folder:
            made = folder / "tree" / TREE_ROOT
            (made / "lib").mkdir(parents=True)
            (made / "etc").mkdir()
            shutil.copy(rpm, made / "rpm")
            for library, path in objects.items():
                shutil.copy(path, made / "lib" / library)
            for file in _CONFIGURATION_FILES:
                shutil.copy(_CONFIGURATION / file, made / "etc" / file)
            (made / "etc" / "platform").mkdir()
            for path in [made, *made.rglob("*")]:
                path.chmod(0o755)
            return store.keep_tree(made.parent, known) / TREE_ROOT


def lua_command(at: str, script: str, arguments: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the command that runs the Lua file `script`, with its environment.

    The runtime is bound at `at`.

    As in rpm, `arg[1]` is `<lua>` and the scriptlet's numbers follow; the paths of a file trigger come through
    `rpm.input()`, which reads standard input here.
    """
    words = ['"<lua>"', *(word if word.isdigit() else f'"{word}"' for word in arguments)]
    program = _PROGRAM.replace("ARGUMENTS", ", ".join(words)).replace("SCRIPT", script)
    linker = next(path.name for path in (Path("/lib64"), Path("/lib")) for path in path.glob("ld-linux-*.so.*"))
    command = (
        f"{at}/lib/{linker}",
        "--library-path",
        f"{at}/lib",
        f"{at}/rpm",
        "--eval",
        f"%{{lua:{program}}}",
    )
    return command, {"RPM_CONFIGDIR": f"{at}/etc"}


def runtime_digest(runtime: Path) -> Digest:
    """Return the digest of the runtime, for identities."""
    return Digest.of(runtime.parent.name.encode())


def _closure(program: Path) -> dict[str, Path]:
    """Return the shared objects that a program loads, dynamic linker included: name → path."""
    found: dict[str, Path] = {}
    for line in run(["ldd", program], timeout=_SECONDS).stdout.decode().splitlines():
        match = re.search(r"(?:(\S+) => )?(/\S+) \(0x", line)
        if match:
            path = Path(match[2])
            found[Path(match[1] or match[2]).name] = path.resolve()
    return dict(sorted(found.items()))
