"""Table of the options of `.repo` files: obeyed, fixed, without effect, or refused.

All of dnf.conf(5) that a repository may have (dnf 4.14), what libdnf reads besides (ConfigRepo.cpp), and what other
tools write into such files. `docs/repositories.md` has this table; what is not in it is an error, since it may be
misspelled.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Final

from pipeline.lazy_dataclasses import dataclass


class Treatment(Enum):
    """The way in which an option of a `.repo` file is treated."""

    OBEYED = "obeyed"
    FIXED = "always so"
    IDLE = "no effect"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RepoFileOption:
    """An option: its name, its treatment, and what it means here."""

    name: str
    treatment: Treatment
    meaning: str


_OBEYED = {
    "baseurl": "where it is; a path from the root is a `file://` URL",
    "metalink": "goes before `mirrorlist` and `baseurl`",
    "mirrorlist": "goes before `baseurl`; with `metalink` in its URL it is one",
    "gpgkey": "the keys of its packages; `keys` beside `file` replaces it, and one of the two is needed",
    "repo_gpgcheck": "`signed-metadata`",
    "enabled": "a section that is not enabled is left out, unless `sections` names it",
    "cost": "`cost`",
    "priority": "`priority`",
    "excludepkgs": "`exclude`",
    "exclude": "the same, as yum spells it",
    "includepkgs": "`includepkgs`",
    "module_hotfixes": "`module_hotfixes`",
    "sslcacert": "`sslcacert`; the one beside `file` replaces it",
    "sslclientcert": "`sslclientcert`; the one beside `file` replaces it, and the key",
    "sslclientkey": "`sslclientkey`",
    "username": "for the hosts that the section names; their names, `proxy` and `sslcacert` may then hold no variables",
    "password": "read from the file when the repository is opened",
    "proxy": "`_none_` and nothing stand for the environment's, as for dnf",
    "proxy_username": "`proxy_username`; `proxy` is needed, and it and `sslcacert` may then hold no variables",
    "proxy_password": "read from the file when the repository is opened",
    "type": "`rpm-md` and its other names; others are refused",
}
_FIXED = {
    "gpgcheck": "signatures of packages are always checked",
    "localpkg_gpgcheck": "packages by path have a checksum in the recipe",
    "sslverify": "servers are always verified: `0` is refused",
    "proxy_sslverify": "likewise",
    "skip_if_unavailable": "a repository that cannot be had is an error: without it, another image would come out",
    "countme": "never counted",
}
_IDLE = {
    "name": "for people",
    "mediaid": "for installation media",
    "bandwidth": "speed is not limited",
    "throttle": "speed is not limited",
    "deltarpm": "whole packages are fetched",
    "deltarpm_percentage": "whole packages are fetched",
    "enablegroups": "groups count where a recipe names them: `@GROUP`",
    "fastestmirror": "a slow mirror is left for the next one anyway",
    "max_parallel_downloads": "relbuild's own",
    "max_downloads_per_mirror": "relbuild's own",
    "metadata_expire": "metadata is looked at each time something is resolved",
    "minrate": "RELBUILD_MINRATE",
    "timeout": "RELBUILD_TIMEOUT",
    "retries": "relbuild's own",
    "protected_packages": "nothing is removed",
    "sslverifystatus": "certificates are verified, their revocation (OCSP stapling) is not asked for",
    "user_agent": "relbuild's own",
    "cachedir": "the store",
    "keepcache": "the store",
    "enabled_metadata": "for PackageKit",
    "arches": "of subscription-manager",
    "ui_repoid_vars": "of yum",
    "failovermethod": "of yum: mirrors are asked in their order",
    "http_caching": "of yum",
    "mirrorlist_expire": "of yum",
    "metadata_expire_filter": "of yum",
    "autorefresh": "of zypper",
    "keeppackages": "of zypper",
    "service": "of zypper",
}
_REFUSED = {
    "proxy_auth_method": "but for `any` and `basic`",
    "proxy_sslcacert": "a proxy is known by the machine's authorities, or `sslcacert`",
    "proxy_sslclientcert": "no certificate is shown to a proxy",
    "proxy_sslclientkey": "no certificate is shown to a proxy",
    "ip_resolve": "addresses are those that the machine resolves",
    "gpgcakey": "keys are named one by one",
    "path": "write it into `baseurl`",
}

OPTIONS: Final = MappingProxyType(
    {
        name: RepoFileOption(name, treatment, meaning)
        for treatment, listed in (
            (Treatment.OBEYED, _OBEYED),
            (Treatment.FIXED, _FIXED),
            (Treatment.IDLE, _IDLE),
            (Treatment.REFUSED, _REFUSED),
        )
        for name, meaning in listed.items()
    }
)
"""Every option that is known, by name."""


def repo_file_reference() -> str:
    """Return the table of options in `docs/repositories.md`."""
    rows = [f"| `{one.name}` | {one.treatment.value} | {one.meaning} |" for one in OPTIONS.values()]
    return "\n".join(["| option | treatment | here |", "|---|---|---|", *rows]) + "\n"
