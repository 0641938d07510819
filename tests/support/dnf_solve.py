"""What dnf would install: run by the system's Python, which has dnf's modules.

Reads JSON from standard input: {"repositories": {id: {"url": …, "priority": 99, "cost": 1000, and any of
"excludepkgs", "includepkgs", "module_hotfixes"}}, "arch": …, "releasever": …, "root": an empty folder, "weak": false,
"exclude": [glob, …], "modules": [name:stream, …], "sets": [[text, …], …]} and
writes a JSON list: for each set the sorted NEVRAs, or null where dnf refuses. A text that is the absolute
path of an .rpm file installs that file. The configuration is the one of
`dnf --installroot=EMPTY --setopt=reposdir=/dev/null --repofrompath=… --setopt=best=1 install …`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import dnf
import dnf.comps
import dnf.exceptions
import dnf.module.module_base


def base_for(asked: dict[str, Any]) -> Any:
    """A dnf base with the repositories loaded and nothing installed."""
    base = dnf.Base()
    conf = base.conf
    conf.installroot = asked["root"]
    conf.cachedir = f"{asked['root']}/cache"
    conf.logdir = asked["root"]
    conf.persistdir = f"{asked['root']}/persist"
    conf.reposdir = ["/dev/null"]
    conf.pluginpath = []
    conf.substitutions["arch"] = asked["arch"]
    conf.substitutions["basearch"] = asked["arch"]
    conf.substitutions["releasever"] = asked["releasever"]
    conf.best = True
    conf.install_weak_deps = bool(asked.get("weak"))
    conf.excludepkgs = ",".join(asked.get("exclude", []))
    conf.module_platform_id = "platform:el9"
    for name, one in asked["repositories"].items():
        # Of a list dnf would take the first entry alone.
        options = {key: ",".join(value) if isinstance(value, list) else value for key, value in one.items() if value}
        del options["url"]
        base.repos.add_new_repo(name, conf, baseurl=[one["url"]], **options)
    base.fill_sack(load_system_repo=True)
    base.read_comps()
    return base


def solve(base: Any, texts: list[str], modules: list[str]) -> list[str] | None:
    """The NEVRAs for one set of requests, or None."""
    base.reset(goal=True)
    try:
        if modules:
            dnf.module.module_base.ModuleBase(base).enable(modules)
        paths = [text for text in texts if text.startswith("/") and text.endswith(".rpm")]
        for package in base.add_remote_rpms(paths) if paths else []:  # dnf wants these before all others
            base.package_install(package)
        base._comps_trans = dnf.comps.TransactionBunch()
        groups = [text[1:] for text in texts if text.startswith("@")]
        if groups:
            base.env_group_install(groups, base.conf.group_package_types)
        for text in texts:
            if text not in paths and not text.startswith("@"):
                base.install(text)
        base.resolve()
    except (dnf.exceptions.Error, ValueError) as error:
        print(texts, error, file=sys.stderr)
        return None
    chosen = list(base.transaction.install_set) if base.transaction else []
    return sorted(f"{p.name}-{f'{p.epoch}:' if p.epoch else ''}{p.version}-{p.release}.{p.arch}" for p in chosen)


def main() -> None:
    asked = json.load(sys.stdin)
    base = base_for(asked)
    json.dump([solve(base, texts, asked.get("modules", [])) for texts in asked["sets"]], sys.stdout)


if __name__ == "__main__":
    main()
