"""Modular repositories: find the enabled streams, and hide the packages that they exclude.

As libdnf's ModulePackageContainer, for the case of an empty root: a stream is enabled when the recipe names it
under `modules` (`name:stream`), when it is its module's default (`modulemd-defaults`), or when an enabled stream
requires it; module_solver.py decides. All builds of a stream that have the same context are on together, so that an
older one can be asked for (dnf-sack.cpp, setModuleExcludes); a context is what a build requires, unless it says
`static_context`. Packages of streams that are off are hidden; packages of streams that are on hide those outside of
modules that have, or provide, the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import Problem, RecipeError, ResolutionError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.recipe import Recipe
from pipeline.progress import QUIET, Progress
from pipeline.repos import LOCAL_REPOSITORY, OpenRepository, metadata_file
from pipeline.resolve.hidden_packages import HiddenPackage
from pipeline.resolve.module_solver import ModuleBuild, enabled_builds, module_refused
from pipeline.resolve.pool import PackagePool
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.yaml_documents import DocumentPath

MODULES_LIMIT = 256 << 20
"""Bytes of modules.yaml: EL8's AppStream has about 30 MiB."""

_SEPARATOR = re.compile(r"^---(?:[ \t].*)?$\n?|^\.\.\.[ \t]*$\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Default:
    """The default stream of a module, if it has one.

    It has the time when this was `modified`, in twelve digits; 0 for unknown.
    """

    stream: str | None
    modified: int = 0


def apply_modules(
    package_pool: PackagePool,
    recipe: Recipe,
    repositories: Sequence[OpenRepository],
    *,
    store: Store,
    progress: Progress = QUIET,
) -> None:
    """Hide the packages in the pool that modules exclude, each with its reason.

    Packages by path, of the parent image and of repositories with `module_hotfixes` are never hidden. Raises
    ResolutionError `module-refused`.
    """
    streams, defaults = _read(repositories, store, progress)
    if not streams and not recipe.modules:
        return
    active = _activate(recipe, streams, defaults)
    builds = [one for one in streams if _active(one, active)]
    on = {nevra for one in builds for nevra in one.packages}
    off = {nevra: one.name for one in streams if not _active(one, active) for nevra in one.packages if nevra not in on}
    kept = {LOCAL_REPOSITORY, *(one.repository.id for one in repositories if one.repository.module_hotfixes)}
    hiding = _hiding_names(builds, active)
    providers = {
        int(one.id): stream
        for name, stream in hiding.items()
        for one in package_pool.pool.whatprovides(package_pool.pool.Dep(name))
    }
    hidden: dict[int, HiddenPackage] = {}
    for solvable in package_pool.solvables():
        number = int(solvable.id)
        nevra = package_pool.nevra(number)
        full = f"{nevra.name}-{nevra.epoch}:{nevra.version}-{nevra.release}.{nevra.arch}"
        by = hiding.get(nevra.name) or providers.get(number)
        if solvable.repo.name in kept or full in on:
            continue
        if full in off:
            module = off[full].partition(":")[0]
            hidden[number] = HiddenPackage(off[full], active[module].name if module in active else None)
        elif by is not None:
            hidden[number] = HiddenPackage(None, by)
    package_pool.hide(hidden)


def _active(one: ModuleBuild, active: Mapping[str, ModuleBuild]) -> bool:
    """Return whether a build has the stream and context chosen for its module."""
    chosen = active.get(one.module)
    return chosen is not None and (chosen.stream, chosen.context) == (one.stream, one.context)


def _hiding_names(builds: Sequence[ModuleBuild], active: Mapping[str, ModuleBuild]) -> dict[str, str]:
    """Map names of packages to the stream that is on and hides others of this name.

    Names of source packages hide nothing, nor do those that the newest build calls demodularized.
    """
    return {
        _name(nevra): one.name
        for one in builds
        for nevra in one.packages
        if not nevra.endswith((".src", ".nosrc")) and _name(nevra) not in active[one.module].demodularized
    }


def stream_packages(
    repositories: Sequence[OpenRepository], *, store: Store, progress: Progress = QUIET
) -> dict[str, frozenset[str]]:
    """Return the packages of each module stream (`nodejs:20`), those of all of its builds.

    They are given as `name-epoch:version-release.arch`. Raises ResolutionError `module-refused`.
    """
    found: dict[str, frozenset[str]] = {}
    for one in _read(repositories, store, progress)[0]:
        found[one.name] = found.get(one.name, frozenset()) | one.packages
    return found


def _read(
    repositories: Sequence[OpenRepository], store: Store, progress: Progress
) -> tuple[list[ModuleBuild], dict[str, str]]:
    """Read the builds of all streams, and the default stream of each module that has one.

    What several repositories say of a module is merged in their order.
    """
    streams: list[ModuleBuild] = []
    defaults: dict[str, _Default] = {}
    for opened in repositories:
        found = metadata_file(opened, "modules", store=store, progress=progress)
        if found is None:
            continue
        if found[0].stat().st_size > MODULES_LIMIT:
            raise module_refused("modules.yaml is too large", f"repository {opened.repository.id}")
        name = f"modules.yaml of {opened.repository.id}"
        try:
            text = found[0].read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise module_refused(f"{name} is not UTF-8", name) from error
        own: dict[str, _Default] = {}
        for value in _documents(text, name):
            _take(value, streams, own)
        for module, one in own.items():
            defaults[module] = _merged(defaults.get(module, _Default(None)), one)
    return streams, {module: one.stream for module, one in defaults.items() if one.stream is not None}


def _merged(before: _Default, later: _Default) -> _Default:
    """Merge the defaults that two repositories have for one module; contradictory ones are none.

    As libmodulemd: a document that was modified later counts alone, and one that names no stream says nothing.
    """
    modified = max(before.modified, later.modified)
    if later.stream is None or (before.stream is not None and before.modified > later.modified):
        return _Default(before.stream, modified)
    if before.stream in (None, later.stream) or before.modified < later.modified:
        return _Default(later.stream, modified)
    return _Default(None, modified)


def _documents(text: str, name: str) -> Iterator[Mapping[str, object]]:
    """Yield the documents of a YAML stream, each parsed by itself.

    Numbers and booleans are text, as written.
    """
    from pipeline.yaml_documents import parse_yaml  # Here and not above: most platforms have no modules.

    for part in _SEPARATOR.split(text):
        if not part.strip():
            continue
        try:
            document = parse_yaml(part, name)
        except RecipeError as error:
            raise module_refused(f"{name} cannot be read: {error.problems[0].message}", name) from error
        if isinstance(document.value, dict):
            for path, written in document.numbers.items():
                _put(document.value, path, written)
            yield document.value


def _put(value: object, path: DocumentPath, text: str) -> None:
    """Put the text of a number or boolean in its place.

    The stream 1.10 is another than 1.1, as for dnf.
    """
    for step in path[:-1]:
        value = value[step]  # type: ignore[index]
    value[path[-1]] = text  # type: ignore[index]


def _take(value: Mapping[str, object], streams: list[ModuleBuild], defaults: dict[str, _Default]) -> None:
    """Parse one document of modules.yaml into `streams` or `defaults`; other kinds are ignored.

    Of several defaults of a module in one modules.yaml the last counts.
    """
    data = value.get("data")
    if not isinstance(data, dict):
        return
    if value.get("document") == "modulemd-defaults":
        stream = data.get("stream")
        defaults[str(data.get("module"))] = _Default(
            None if stream is None else str(stream), _number(data.get("modified", 0))
        )
    if value.get("document") == "modulemd":
        requires = _requires(data.get("dependencies"))
        static = str(data.get("static_context")).lower() == "true"
        streams.append(
            ModuleBuild(
                str(data.get("name")),
                str(data.get("stream")),
                _number(data.get("version", 0)),
                str(data.get("context", "")) if static else _context(requires),
                requires,
                _rpms(data.get("artifacts")),
                _rpms(data.get("demodularized")),
            )
        )


def _context(requires: Mapping[str, Sequence[str]]) -> str:
    """Return the context of a build that has no static one, as libdnf sees it: what it requires.

    Among several contexts that fit, the first by this text is on.
    """
    parts = (f"{module}:[{','.join(sorted(streams))}]" if streams else module for module, streams in requires.items())
    return ",".join(sorted(parts))


def _rpms(value: object) -> frozenset[str]:
    """Return the list `rpms` of a member of a build, but for names of no package.

    A NUL would end libsolv's strings.
    """
    rpms = value.get("rpms") if isinstance(value, dict) else None
    return (
        frozenset(text for one in rpms if (text := str(one)).isprintable()) if isinstance(rpms, list) else frozenset()
    )


def _number(value: object) -> int:
    """Return a build's version or a default's time, some fifteen digits.

    An invalid one is 0, older than any.
    """
    text = str(value)
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else 0


def _requires(dependencies: object) -> dict[str, tuple[str, ...]]:
    """Return the streams of each module that a build requires.

    Version 2 of modulemd: a list of mappings of mappings of lists; `platform` is the distribution itself.
    """
    found: dict[str, tuple[str, ...]] = {}
    for one in dependencies if isinstance(dependencies, list) else [dependencies]:
        requires = one.get("requires") if isinstance(one, dict) else None
        for module, wanted in requires.items() if isinstance(requires, dict) else ():
            if module != "platform":
                listed = wanted if isinstance(wanted, list) else [wanted]
                found[str(module)] = tuple(str(stream) for stream in listed)
    return found


def _activate(recipe: Recipe, streams: Sequence[ModuleBuild], defaults: Mapping[str, str]) -> dict[str, ModuleBuild]:
    """Map each module to the newest build of its enabled stream."""
    known = {one.name for one in streams}
    chosen: dict[str, str] = {}
    problems = []
    for text in recipe.modules:
        module, _, stream = text.partition(":")
        stream = stream or defaults.get(module, "")
        if f"{module}:{stream}" not in known:
            have = ", ".join(sorted(name for name in known if name.startswith(f"{module}:")))
            problems.append(
                Problem(
                    "module-refused",
                    f"module stream not found: '{text}'",
                    recipe.path.name,
                    f"available: {have}" if have else "no repository of the platform has this module",
                )
            )
        elif chosen.setdefault(module, stream) != stream:
            problems.append(
                Problem("module-refused", f"module '{module}' is listed with two streams", recipe.path.name)
            )
    if problems:
        raise ResolutionError.of(problems)
    known_defaults = {module: stream for module, stream in defaults.items() if f"{module}:{stream}" in known}
    return enabled_builds(streams, chosen, known_defaults, recipe.path.name)


def _name(nevra: str) -> str:
    return nevra.rsplit("-", 2)[0]
