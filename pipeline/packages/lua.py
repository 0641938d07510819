"""Copy the host's rpm into a runtime folder, to run `-p <lua>` scriptlets in any image.

`-p <lua>` scriptlets run inside rpm itself, and an image need not hold rpm.

The host's rpm with its ELF closure and its configuration is copied into a folder that can be bound into any
root file system and started there through its own dynamic linker, whatever libc the image has.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.digest import Digest, digest_file, identity
from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import from_json, to_json
from pipeline.process import find_program, run
from pipeline.store import Store
from pipeline.store.blobs import blob_stamp
from pipeline.store.tree_seals import TREE_ROOT

_FORMAT = 1
_CONFIGURATION = Path("/usr/lib/rpm")
_CONFIGURATION_FILES = ("rpmrc", "macros")
_SECONDS = 30.0
_LIBRARY_CACHE = Path("/etc/ld.so.cache")
"""The places of shared libraries, by name (ld.so(8)): after a change others may be loaded."""

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
    sources = identity("lua-runtime sources", _FORMAT, rpm=str(rpm))
    former = store.recall_as(sources, lambda value: from_json(_Sources, value))
    if former is None or former.stamps != _stamps(Path(one.path) for one in former.stamps):
        objects = _closure(rpm)
        stamps = _stamps((rpm, *objects.values(), _LIBRARY_CACHE))
        name = identity("lua-runtime", _FORMAT, files=[str(digest_file(path)) for path in (rpm, *objects.values())])
        former = _Sources(tuple(_Object(library, str(path)) for library, path in objects.items()), stamps, name)
        store.remember(sources, to_json(former), sync=False)
    objects = {one.name: Path(one.path) for one in former.objects}
    known = f"lua-{former.name.hex[:24]}"
    with store.locked(known):
        kept = store.trees.kept(known)
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
            return store.trees.keep(made.parent, known) / TREE_ROOT


@dataclass(frozen=True, slots=True)
class _Object:
    """A shared object's name, and its path on this machine."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The stamp of a file, another after every change of it; () where there is none."""

    path: str
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Sources:
    """The files that the runtime is copied from, as they were.

    `name` is the digest of their content.
    """

    objects: tuple[_Object, ...]
    stamps: tuple[_Stamp, ...]
    name: Digest


def _stamps(paths: Iterable[Path]) -> tuple[_Stamp, ...]:
    return tuple(_Stamp(str(path), tuple(blob_stamp(path) or ())) for path in paths)


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
