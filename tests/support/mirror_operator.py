"""A mirror's operator in tests: small products, a key, and relbuild's command line as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.mirror.protocol import is_auxiliary
from tests.support.patience import HUNG
from tests.support.product_builds import SmallProducts, small_products
from tests.support.rpm_factory import Forge

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended: its exit status, the codes of its errors, its errors, its JSON."""

    status: int
    codes: tuple[str, ...]
    errors: str
    value: dict[str, object]


@dataclass(frozen=True, slots=True)
class MirrorOperator:
    """`folder` holds keys `ours` and `theirs`; products are built and published from one store."""

    folder: Path
    products: SmallProducts

    @property
    def key(self) -> Path:
        """What signs."""
        return self.folder / "ours.key"

    @property
    def public(self) -> Path:
        """What must have signed."""
        return self.folder / "ours.pub"

    @property
    def other_key(self) -> Path:
        """Another one's."""
        return self.folder / "theirs.key"

    @property
    def store(self) -> Path:
        """Where products are built, with the key of seals."""
        return self.products.folder / "store"

    def relbuild(self, *words: str | Path, store: Path | None = None, process: bool = False) -> Said:
        """Run a command to its end: the command line is read here, which saves a second each time, or (`process`) by
        a process of its own."""
        arguments = [*map(str, words), "--store", str(store or self.store), "--json", "--progress", "none"]
        environment = {"HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        if process:
            argv = [sys.executable, "-m", "pipeline", *arguments]
            environment["PATH"] = os.environ["PATH"]
            done = subprocess.run(
                argv,
                env=environment,
                capture_output=True,
                text=True,
                timeout=HUNG,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            status, out, err = done.returncode, done.stdout, done.stderr
        else:
            import_commands(arguments[0])
            result = CliRunner().invoke(app, arguments, env=environment)
            status, out, err = result.exit_code, result.stdout, result.stderr
        assert "Traceback" not in err, err
        value = json.loads(out) if out.strip() else {}
        errors = value.get("error", [])
        return Said(status, tuple(one["code"] for one in errors), err, value)

    def publish(
        self, layouts: list[Path], to: str, *words: str | Path, store: Path | None = None, process: bool = False
    ) -> Said:
        """`relbuild publish`, signed with the key."""
        command = ("publish", *layouts, "--to", to, "--key", self.key, *words)
        return self.relbuild(*command, store=store, process=process)


def operator(folder: Path, forge: Forge) -> MirrorOperator:
    """With two keys, of which each has a public half; they have no password, which costs a fifth of a second."""
    for name in ("ours", "theirs"):
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / f"{name}.key").write_bytes(secret)
        (folder / f"{name}.pub").write_bytes(public)
    return MirrorOperator(folder, small_products(folder / "products", forge))


def copied(layout: Path, folder: Path) -> Path:
    """A layout and its report, copied so that a test may spoil them; returns the layout."""
    for name in (layout.name, f"{layout.name}.report"):
        shutil.copytree(layout.parent / name, folder / name)
    return folder / layout.name


def tags_of(mirror: str) -> dict[str, set[str]]:
    """Repository → the tags by which people pull, as whoever has no relbuild sees them: `dir:PATH` in its files,
    `registry+http://HOST/NAMESPACE` over HTTP, `oci:PATH` in its index."""
    kind, _, rest = mirror.partition(":")
    found: dict[str, set[str]] = {}
    if kind == "dir":
        for file in (Path(rest) / "repositories").rglob("_tags.json"):
            value = json.loads(file.read_bytes())
            links = (
                {path.name for path in (file.parent / "_tags").iterdir()} if (file.parent / "_tags").is_dir() else set()
            )
            found[value["name"]] = set(value["tags"]) | links
    elif kind == "oci":
        if Path(rest).exists():
            entries = json.loads((Path(rest) / "index.json").read_bytes())["manifests"]
            names = {one.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for one in entries}
            found[""] = names - {""}
    else:
        host, _, namespace = rest.removeprefix("//").partition("/")
        for name in httpx.get(f"http://{host}/v2/_catalog?n=1000").raise_for_status().json()["repositories"]:
            if name.startswith(f"{namespace}/"):
                listed = httpx.get(f"http://{host}/v2/{name}/tags/list")
                found[name.removeprefix(f"{namespace}/")] = set(listed.json().get("tags") or ())
    pulled = {name: {tag for tag in tags if not is_auxiliary(tag)} for name, tags in found.items()}
    return {name: tags for name, tags in pulled.items() if tags}
