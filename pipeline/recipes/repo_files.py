"""Read dnf's `.repo` files and variable folders into repositories of a platform.

Each option is treated as `repo_file_options` says. A password is not taken over but named by its place, the file, and
read when the repository is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.beneath import list_folder, read_file
from pipeline.errors import Problem, RecipeError
from pipeline.ini_documents import INI_LIMIT, IniValue, holds_secret, read_ini
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.platform import PackageRepository, RepositoryAccess, SecretReference
from pipeline.recipes.problems import nearest
from pipeline.recipes.repo_file_options import OPTIONS, Treatment
from pipeline.recipes.repository_fields import RepositoryFileDocument

VARIABLES_FOLDERS = (Path("/etc/dnf/vars"), Path("/etc/yum/vars"))
"""dnf's own folders of variables (`varsdir`).

Of others only those beside `repositories.yaml` can be named: what stands in a file there becomes part of URLs."""

VARIABLES_MOST = 1000
_VARIABLE_LIMIT = 4096
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ID = re.compile(r"[A-Za-z0-9_.:-]+")
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_SCHEMES = ("http://", "https://", "file:/")
_TRUE = frozenset({"1", "yes", "true", "on"})
_FALSE = frozenset({"0", "no", "false", "off"})
_RPM_MD = frozenset({"rpm-md", "rpm", "repomd", "rpmmd", "yum", "YUM", ""})
_MAIN = "main"
_DOCUMENTED = "see the table of options in `relbuild help repositories`"


@dataclass(frozen=True, slots=True)
class RepoFile:
    """The repositories of one `.repo` file.

    `secret`: a password or a user's name stands in it, in whichever section.
    """

    path: Path
    repositories: tuple[PackageRepository, ...]
    secret: bool


def read_repo_file(document: RepositoryFileDocument, folder: Path) -> RepoFile:
    """Read the `.repo` file that a platform names; `folder` is where `repositories.yaml` lies.

    Raises RecipeError with every problem: `repo-file-unreadable`, `repo-section-missing`, `repo-option-unknown`,
    `repo-option-refused`, `repo-option-malformed`, `repo-keys-missing`, `repository-location`.
    """
    path = folder.absolute() / document.file
    try:
        secret = holds_secret(read_file(path, INI_LIMIT))
        sections = {name: options for name, options in read_ini(path).items() if name != _MAIN}
    except (OSError, ValueError) as error:
        raise RecipeError(
            "repo-file-unreadable",
            f"the file '{path}' cannot be read: {error}",
            place=str(path),
            hint="copy it beside repositories.yaml, or register this machine",
        ) from error
    problems: list[Problem] = []
    for wanted in document.sections:
        if not any(fnmatchcase(name, wanted) for name in sections):
            near = nearest(wanted, sections)
            hint = f"did you mean '{near}'?" if near else "write ids of its sections"
            problems.append(Problem("repo-section-missing", f"{path.name} has no section '{wanted}'", str(path), hint))
    found = []
    for name, options in sections.items():
        section = _Section(path, folder.absolute() if document.keys else None, name, options, document, problems)
        if section.is_wanted():
            found.append(section.repository())
    if problems:
        raise RecipeError.of(problems)
    return RepoFile(path, tuple(found), secret)


@dataclass(slots=True)
class _Section:
    path: Path
    folder: Path | None
    name: str
    options: Mapping[str, IniValue]
    document: RepositoryFileDocument
    problems: list[Problem] = field(repr=False)

    def is_wanted(self) -> bool:
        """Return whether it becomes a repository: named, or enabled where none is named."""
        if self.document.sections:
            return any(fnmatchcase(self.name, wanted) for wanted in self.document.sections)
        return self._switch("enabled", default=True)

    def repository(self) -> PackageRepository:
        """Return the repository that the section describes; mistakes are added to the problems."""
        if not _ID.fullmatch(self.name):
            self._refuse(
                "repo-option-malformed", None, f"'{self.name[:80]}' is not an id", "use letters, digits, '-._:'"
            )
        for option in self.options:
            self._check(option)
        metalink, mirrorlist = self._text("metalink"), self._text("mirrorlist")
        baseurls = tuple(f"file://{url}" if url.startswith("/") else url for url in self._list("baseurl"))
        if metalink:
            mirrorlist, baseurls = "", ()
        elif mirrorlist:
            baseurls = ()
        self._check_location(metalink, mirrorlist, baseurls)
        keys = tuple(self.document.keys) or self._list("gpgkey")
        if not keys:
            hint = "name the keys beside the file: keys: [PATH or URL]"
            self._refuse("repo-keys-missing", None, "it names no key, and signatures are always checked", hint)
        return PackageRepository(
            id=self.name,
            baseurls=baseurls,
            metalink=metalink or None,
            mirrorlist=mirrorlist or None,
            keys=keys,
            priority=self._number("priority", 99),
            cost=self._number("cost", 1000),
            signed_metadata=self._switch("repo_gpgcheck", default=False),
            exclude=(*self._list("excludepkgs"), *self._list("exclude")),
            include=self._list("includepkgs"),
            module_hotfixes=self._switch("module_hotfixes", default=False),
            accept=tuple(sorted(set(self.document.accept))),
            access=self._access(metalink or mirrorlist, *baseurls),
            fingerprints=tuple(sorted(set(self.document.fingerprints))),
            folder=self.folder,
        )

    def _access(self, *urls: str) -> RepositoryAccess:
        own, proxy = self.document, self._text("proxy")
        direct = "proxy" in self.options and proxy.lower() in {"", "_none_"}
        if self._text("proxy_username") and "proxy" not in self.options:
            self._refuse("repo-option-refused", "proxy_username", "it is for no proxy", "name it: proxy")
        username = self._text("username")
        if username and any("$" in url.partition("://")[2].partition("/")[0] for url in urls):
            self._refuse(
                "repo-option-refused", "username", "a variable in the host's name says where it would go", None
            )
        for option in ("proxy", "sslcacert"):
            if (username or self._text("proxy_username")) and "$" in self._text(option):
                why = "a variable in it says who is given the user's name and password"
                self._refuse("repo-option-refused", option, why, "write it without variables")
        if username and own.sslcacert:
            hint = "put the authority into the section"
            self._refuse("repo-option-refused", "username", "'sslcacert' beside the file replaces the section's", hint)
        return RepositoryAccess(
            sslcacert=own.sslcacert or self._text("sslcacert"),
            sslclientcert=own.sslclientcert or self._text("sslclientcert"),
            sslclientkey=(own.sslclientkey or "")
            if own.sslclientcert
            else own.sslclientkey or self._text("sslclientkey"),
            username=username,
            password=self._secret("password"),
            netrc=own.netrc and not username,
            negotiate=own.negotiate and not username,
            proxy="" if direct else proxy,
            proxy_username="" if direct else self._text("proxy_username"),
            proxy_password=None if direct else self._secret("proxy_password"),
        )

    def _check(self, option: str) -> None:
        """Refuse an option that is not known, or whose value is refused by name."""
        known, value = OPTIONS.get(option), self._text(option)
        if known is None:
            near = nearest(option, OPTIONS)
            hint = f"did you mean '{near}'?" if near else _DOCUMENTED
            self._refuse("repo-option-unknown", option, "it is no option of dnf's repositories", hint)
        elif option in {"sslverify", "proxy_sslverify"} and not self._switch(option, default=True):
            hint = "trust its authority: sslcacert"
            self._refuse("repo-option-refused", option, "without its certificate anybody can be the server", hint)
        elif option == "type" and value not in _RPM_MD:
            self._refuse("repo-option-refused", option, "only repositories of rpm-md can be read", None)
        elif known.treatment is Treatment.REFUSED and value not in _HARMLESS.get(option, ("",)):
            self._refuse("repo-option-refused", option, f"it cannot be obeyed: {known.meaning}", None)

    def _check_location(self, metalink: str, mirrorlist: str, baseurls: Sequence[str]) -> None:
        urls = [url for url in (metalink, mirrorlist, *baseurls) if url]
        if not urls:
            hint = "it needs baseurl, metalink or mirrorlist"
            self._refuse("repository-location", None, "it has no location", hint)
        for option, url in (
            ("metalink", metalink),
            ("mirrorlist", mirrorlist),
            *(("baseurl", one) for one in baseurls),
        ):
            if url and not url.startswith(_SCHEMES):
                self._refuse("repo-option-malformed", option, "it is no URL of http, https or file", None)

    def _text(self, option: str) -> str:
        return self.options[option].text if option in self.options else ""

    def _list(self, option: str) -> tuple[str, ...]:
        return tuple(one for one in re.split(r"[ ,\n]+", self._text(option)) if one)

    def _secret(self, option: str) -> SecretReference | None:
        return SecretReference(file=str(self.path), section=self.name, option=option) if self._text(option) else None

    def _switch(self, option: str, *, default: bool) -> bool:
        if option not in self.options:
            return default
        value = self._text(option).lower()
        if value not in _TRUE | _FALSE:
            self._refuse("repo-option-malformed", option, "it is neither 0 nor 1", None)
        return value in _TRUE

    def _number(self, option: str, default: int) -> int:
        if option not in self.options:
            return default
        value = self._text(option)
        if not _WHOLE.fullmatch(value):
            self._refuse("repo-option-malformed", option, "it is no whole number", None)
            return default
        return int(value)

    def _refuse(self, code: str, option: str | None, why: str, hint: str | None) -> None:
        line = self.options[option].line if option is not None and option in self.options else 0
        where = f"{self.path.name}:{line}: [{self.name}]" if line else f"{self.path.name}: [{self.name}]"
        about = f"'{option}': {why}" if option else why
        self.problems.append(Problem(code, about, f"{where} {option or ''}".rstrip(), hint or _DOCUMENTED))


_HARMLESS: Mapping[str, Sequence[str]] = {"proxy_auth_method": ("", "any", "basic")}


def read_variables(names: Sequence[str], folder: Path) -> dict[str, str]:
    """Read folders of variables (`dnf vars`).

    A file's name is the variable's, its first line the value. Those of a later folder win. Raises RecipeError
    `variables-refused`, `variables-unreadable`.
    """
    found: dict[str, str] = {}
    for name in names:
        path = Path(name)
        if path not in VARIABLES_FOLDERS and (path.is_absolute() or ".." in path.parts):
            listed = ", ".join(map(str, VARIABLES_FOLDERS))
            raise RecipeError(
                "variables-refused",
                f"variables cannot be taken from '{name[:200]}'",
                place=name[:200],
                hint=f"use {listed}, or a folder beside repositories.yaml",
            )
        found |= dict(_variables(folder.absolute() / path))
    return found


def _variables(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        if folder not in VARIABLES_FOLDERS and not folder.resolve().is_relative_to(folder.parent.resolve()):
            raise OSError("it is a link that leads away")
        paths = [folder / name for name in list_folder(folder) if _VARIABLE.fullmatch(name)]
        if len(paths) > VARIABLES_MOST:
            raise OSError(f"it has more than {VARIABLES_MOST} files")
        for path in paths:
            if path.is_symlink():
                raise OSError(f"'{path.name}' is a link")
            value = read_file(path, _VARIABLE_LIMIT).decode().partition("\n")[0].strip()
            if "$" in value or not value.isprintable():
                raise OSError(f"'{path.name}' has no plain value")
            yield path.name, value
    except (OSError, ValueError) as error:
        raise RecipeError(
            "variables-unreadable",
            f"the folder of variables '{folder}' cannot be read: {error}",
            place=str(folder),
            hint="each file there has one line, the value of the variable that it is called after",
        ) from error
