"""What a publication costs: one that changes nothing sends nothing, one that changes a package sends what changed, and
no more than `skopeo copy` sends of the same image to a registry of its own in the same run."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.push import push
from pipeline.model.publication import Publication
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.release import PublishOptions, publish
from pipeline.release.current_images import tag_signer
from pipeline.release.publish import open_built_image, prepare_upload
from tests.support.counting_proxy import counted_registry, stored
from tests.support.foreign_programs import docker_registry
from tests.support.patience import HUNG
from tests.support.signing_examples import signing_key
from tests.system.conftest import ROOT

UPDATED = "tzdata"
"""A package of every product's base that has an update."""

REQUEST = re.compile(r'"([A-Z]+) (/v2/\S*) HTTP/1\.[01]" (\d{3})')


def accessed(folder: Path) -> list[tuple[str, str, int]]:
    """The requests in a docker-registry's access log: method, path, status."""
    found = REQUEST.findall((folder / "log").read_text())
    return [(method, path, int(status)) for method, path, status in found]


def publish_on(mirror: RegistryMirror, built: BuildResult, build_env: BuildEnvironment) -> Publication:
    """`pipeline.release.publish`, on a mirror that is open, so that its traffic can be read."""
    repository = mirror.repository(built.image.name)
    order = PublishOptions((built.layout,), parse_address(mirror.url), signing_key())
    signer = tag_signer(order.key, order.rules, build_env)
    upload, clear_again = prepare_upload([open_built_image(built.layout, build_env)], repository, order, build_env)
    return push(upload, repository, clear_again=clear_again, signer=signer, progress=QUIET)


def skopeo(built: BuildResult, target: str) -> None:
    source = f"oci:{built.layout}:{built.image.reference}"
    argv = ["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", source, f"docker://{target}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HUNG, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def before(
    recipes: Path, build_env: BuildEnvironment, mirror: Path, tmp_path_factory: pytest.TempPathFactory
) -> BuildResult:
    """nginx as it was before UPDATED was: everything else is the same."""
    (package,) = (mirror / "base").glob(f"{UPDATED}-[0-9]*.rpm")
    argv = ["rpm", "-qp", "--nosignature", "--qf", "%{VERSION}-%{RELEASE}", package]
    old = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    recipe = recipes / "nginx-before.yaml"
    recipe.write_text((ROOT / "recipes" / "nginx.yaml").read_text() + f'\npins: {{{UPDATED}: "{old}"}}\n')
    output = tmp_path_factory.mktemp("before")
    return build(BuildOptions(recipe, recipes / "repositories.yaml", output=output), build_env)


def test_publishing_what_is_there_asks_a_registry_and_sends_it_nothing(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, tmp_path: Path
) -> None:
    nginx = built("nginx")
    with (
        docker_registry(tmp_path) as host,
        open_registry(f"registry+http://{host}/ns", environment={}, progress=QUIET) as mirror,
    ):
        first = publish_on(mirror, nginx, build_env)
        cost = mirror.traffic
        tags = {tag: mirror.repository("nginx").resolve(tag) for tag in mirror.repository("nginx").tags()}
        earlier, seen, held = mirror.traffic, len(accessed(tmp_path)), stored(tmp_path)
        again = publish_on(mirror, nginx, build_env)
        traffic, requests = mirror.traffic - earlier, accessed(tmp_path)[seen:]
        assert {tag: mirror.repository("nginx").resolve(tag) for tag in mirror.repository("nginx").tags()} == tags
    assert first.moved and again.moved == () and again.uploaded == () and again.attached == ()
    assert again.unmoved == tuple(move.tag for move in first.moved)
    assert traffic.sent == 0 and traffic.count("PUT", "POST", "PATCH", "DELETE") == 0
    assert {method for method, _, _ in requests} <= {"GET", "HEAD"}
    assert len(requests) == traffic.count(), "the registry and the publisher count the same"
    assert Counter(method for method, _, _ in requests) == {"GET": traffic.count("GET"), "HEAD": traffic.count("HEAD")}
    assert stored(tmp_path) == held
    assert traffic.count() < cost.count() / 2
    print(
        f"\nnothing changed: {traffic.count()} requests ({traffic.count('HEAD')} HEAD, {traffic.count('GET')} GET), "
        f"0 bytes sent, {traffic.received} received; the first time: {cost.count()} requests, {cost.sent} bytes sent"
    )


def test_publishing_what_is_there_leaves_every_file_of_a_directory_alone(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, tmp_path: Path
) -> None:
    def listing() -> dict[str, tuple[int, ...]]:
        found = {}
        for path in sorted((tmp_path / "mirror").rglob("*")):
            if {".scrub", ".incoming"} & set(path.parts):  # what was found whole is remembered there
                continue
            seen = path.lstat()
            found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        return found

    order = PublishOptions((built("nginx").layout,), parse_address(f"dir:{tmp_path}/mirror"), signing_key())
    (first,) = publish(order, build_env)
    held = listing()
    (again,) = publish(order, build_env)
    assert listing() == held and len(held) > 30
    assert first.moved and again.moved == () and again.bytes_uploaded == 0


def test_an_update_of_one_package_sends_what_changed_and_no_more_than_skopeo(
    built: Callable[[str], BuildResult], before: BuildResult, build_env: BuildEnvironment, tmp_path: Path
) -> None:
    after = built("nginx")
    old = {layer.blob.digest for layer in before.image.layers}
    changed = {layer.blob.digest: layer.blob.size for layer in after.image.layers if layer.blob.digest not in old}
    assert changed and len(changed) < len(after.image.layers)
    changed[after.image.config_descriptor.digest] = after.image.config_descriptor.size
    with (
        counted_registry(tmp_path / "ours") as (ours, our_counter),
        counted_registry(tmp_path / "theirs") as (theirs, their_counter),
        open_registry(f"registry+http://{ours}/ns", environment={}, progress=QUIET) as mirror,
    ):
        publish_on(mirror, before, build_env)
        skopeo(before, f"{theirs}/ns/nginx:latest")
        earlier, our_wire, their_wire, their_store = (
            mirror.traffic, our_counter.sent, their_counter.sent, stored(tmp_path / "theirs"),
        )  # fmt: skip
        done = publish_on(mirror, after, build_env)
        skopeo(after, f"{theirs}/ns/nginx:latest")
        traffic = mirror.traffic - earlier
        our_wire, their_wire = our_counter.sent - our_wire, their_counter.sent - their_wire
        their_bytes = {hex_: size for hex_, size in stored(tmp_path / "theirs").items() if hex_ not in their_store}
    sent = dict(done.uploaded)
    image = {*changed, after.image.digest}
    our_image = sum(sent[digest] for digest in image)
    rest = sum(size for digest, size in sent.items() if digest not in image)
    assert image <= set(sent), "everything that changed was sent"
    assert {digest.hex for digest in image} == set(their_bytes)
    unchanged = {layer.blob.digest for layer in after.image.layers} - set(changed)
    assert not unchanged & set(sent) and unchanged <= set(done.present)
    ratio = our_image / sum(their_bytes.values())
    assert ratio <= 1.0
    # On the wire, with headers, and with what skopeo does not bring: signatures, attestations, records of moves, tags.
    assert our_wire <= their_wire + 2 * rest + 400 * traffic.count() + 2000 * len(done.moved)
    whole = sum(layer.blob.size for layer in after.image.layers)
    print(
        f"\none package of {whole} bytes of layers: layers, config and manifest {our_image} bytes, skopeo "
        f"{sum(their_bytes.values())}: ratio {ratio:.3f}; signatures and attestations {rest} more; on the wire with "
        f"headers {our_wire} in {traffic.count()} requests (bodies {traffic.sent}), skopeo {their_wire}: ratio "
        f"{our_wire / their_wire:.3f}"
    )
