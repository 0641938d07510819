"""What `relbuild serve` answers, asked in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, PublicationRefused, UsageError
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.layout.layout_mirror import open_layout
from pipeline.mirror.connections import REQUESTS_AT_ONCE, REQUESTS_AT_ONCE_EACH, limit_requests
from pipeline.mirror.protocol import Repository
from pipeline.mirror.pull_server import application, open_pull_source, serve_mirror
from pipeline.mirror.references import references
from pipeline.model.evidence import evidence_json
from pipeline.model.manifests import Manifest
from pipeline.oci import make_image, media_types, write_index_layout, write_layout
from pipeline.release import refuse_untested
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.asgi import ask
from tests.support.tested_images import evidence, image
from tests.support.tiny_image import CONFIG, layer

NOTHING = "sha256:" + "0" * 64


@pytest.fixture(params=["directory", "layout"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Starlette, Repository, Manifest, Path]:
    """One image with two notes under three tags, in a mirror of each kind."""
    store = Store.open(tmp_path / "store")
    path = tmp_path / "tiny"
    repository: Repository
    if request.param == "directory":
        repository = open_directory(path, create=True, clock=time.time).repository("tiny")
    else:
        repository = open_layout(path, create=True).repository("tiny")
    put = mirror_images.publish(repository, store, mirror_images.image(store, 1), "1.0")
    for tag in ("1", "latest"):
        repository.point(tag, mirror_images.cleared(put), None)
    mirror_images.attach(repository, put.descriptor, "one", "application/vnd.example.one")
    mirror_images.attach(repository, put.descriptor, "two", "application/vnd.example.two")
    return application(open_pull_source(path, clock=time.time)), repository, put, path


Served = tuple[Starlette, Repository, Manifest, Path]


def test_a_manifest_by_tag_and_by_digest(served: Served) -> None:
    client, _, put, _ = served
    for reference in ("1.0", str(put.digest)):
        for method in ("GET", "HEAD"):
            answer = ask(client, f"/v2/tiny/manifests/{reference}", method=method)
            assert answer.status == 200
            assert answer.headers["content-type"] == media_types.MANIFEST
            assert answer.headers["docker-content-digest"] == str(put.digest)
            assert answer.headers["content-length"] == str(len(put.data))
        assert ask(client, f"/v2/tiny/manifests/{reference}").content == put.data


def test_a_blob_and_a_part_of_it(served: Served, tmp_path: Path) -> None:
    client, repository, put, _ = served
    config = references(put).blobs[0]
    url = f"/v2/tiny/blobs/{config.digest}"
    data = repository.read_blob(config)
    whole = ask(client, url)
    assert (whole.status, whole.content) == (200, data)
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["docker-content-digest"] == str(config.digest)
    assert ask(client, url, method="HEAD").headers["content-length"] == str(len(data))
    part = ask(client, url, headers={"Range": "bytes=10-19"})
    assert (part.status, part.content) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    rest = ask(client, url, headers={"Range": "bytes=10-", "If-Range": whole.headers["etag"]})
    assert (rest.status, rest.content) == (206, data[10:])
    assert ask(client, url, headers={"Range": "bytes=999999-"}).status == 416


def test_referrers_all_and_of_one_type(served: Served) -> None:
    client, _, put, _ = served
    every = ask(client, f"/v2/tiny/referrers/{put.digest}")
    assert every.headers["content-type"] == media_types.INDEX
    assert "oci-filters-applied" not in every.headers
    types = {one["artifactType"] for one in every.json()["manifests"]}
    assert types == {"application/vnd.example.one", "application/vnd.example.two"}
    some = ask(client, f"/v2/tiny/referrers/{put.digest}?artifactType=application/vnd.example.two")
    assert some.headers["oci-filters-applied"] == "artifactType"
    (entry,) = some.json()["manifests"]
    assert entry["annotations"] == {"org.example.text": "two"}
    none = ask(client, f"/v2/tiny/referrers/{NOTHING}")
    assert none.status == 200
    assert none.json()["manifests"] == []


def test_tags_come_in_pages(served: Served) -> None:
    client, repository, _, _ = served
    url: str | None = "/v2/tiny/tags/list?n=2"
    found: list[str] = []
    pages = 0
    while url:
        answer = ask(client, url)
        assert answer.json()["name"] == "tiny"
        found += answer.json()["tags"]
        link = answer.headers.get("link")
        url = link.partition("<")[2].partition(">")[0] if link else None
        pages += 1
    assert tuple(found) == repository.tags()
    assert pages == (len(found) + 1) // 2
    assert ask(client, "/v2/tiny/tags/list").json()["tags"] == found
    assert ask(client, "/v2/tiny/tags/list?n=0").json()["tags"] == []
    assert ask(client, "/v2/tiny/tags/list?n=x").status == 400


def test_the_version_and_the_catalogue(served: Served) -> None:
    client, _, _, _ = served
    assert ask(client, "/v2/").headers["docker-distribution-api-version"] == "registry/2.0"
    assert ask(client, "/v2/_catalog").json() == {"repositories": ["tiny"]}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/tiny/manifests/2.0", "MANIFEST_UNKNOWN"),
        (f"/v2/tiny/manifests/{NOTHING}", "MANIFEST_UNKNOWN"),
        (f"/v2/tiny/blobs/{NOTHING}", "BLOB_UNKNOWN"),
        ("/v2/other/tags/list", "NAME_UNKNOWN"),
        (f"/v2/{'a' * 250}/manifests/1", "NAME_UNKNOWN"),
        (f"/v2/other/blobs/{NOTHING}", "NAME_UNKNOWN"),
        ("/", "UNSUPPORTED"),
        ("/v2/tiny/blobs/sha512:00", "UNSUPPORTED"),
        ("/v2/tiny", "UNSUPPORTED"),
    ],
)
def test_what_is_unknown_is_said_as_registries_do(served: Served, path: str, code: str) -> None:
    client, _, _, _ = served
    answer = ask(client, path)
    assert answer.status == 404
    assert answer.json()["errors"][0]["code"] == code


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_nothing_can_be_written(served: Served, method: str) -> None:
    client, repository, put, _ = served
    for path in ("/v2/tiny/manifests/1.0", "/v2/tiny/blobs/uploads/", f"/v2/tiny/manifests/{put.digest}", "/v2/"):
        answer = ask(client, path, method=method)
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert answer.json()["errors"][0]["code"] == "UNSUPPORTED"
    assert repository.resolve("1.0") == put.digest


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../relbuild-mirror.json",
        "/v2/%2e%2e/%2e%2e/etc/passwd",
        "/v2/tiny/manifests/..%2f..%2f..%2frelbuild-mirror.json",
        "/v2/tiny/manifests/%2e%2e",
        "/v2/tiny/blobs/sha256:%2e%2e%2f%2e%2e%2frelbuild-mirror.json",
        "/v2/tiny/../tiny/manifests/1.0",
        "/v2/tiny/%2e%2e/tiny/manifests/1.0",
        "//v2/tiny/manifests/1.0",
        "/v2/tiny/_tags/manifests/1.0",
        "/v2/.quarantine/manifests/1.0",
        "/.quarantine/x/list.json",
        "/relbuild-mirror.json",
        "/index.json",
        "/blobs/sha256/",
    ],
)
def test_no_path_leads_out_of_what_is_served(served: Served, path: str) -> None:
    client, _, _, _ = served
    answer = ask(client, path)
    assert answer.status == 404
    assert "errors" in answer.json()


def test_a_damaged_manifest_is_not_given_away(served: Served) -> None:
    client, _, put, path = served
    (file,) = [one for one in path.rglob(f"{put.digest.hex}*") if one.is_file() and not one.is_symlink()]
    file.write_bytes(put.data.replace(b"tiny", b"tinY"))
    answer = ask(client, "/v2/tiny/manifests/1.0")
    assert answer.status == 500
    assert b"tinY" not in answer.content


def test_only_the_loopback_unless_told_otherwise(served: Served, never: Callable[[str], None]) -> None:
    _, _, _, path = served
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(UsageError) as caught:
            serve_mirror(path, host, 0, clock=time.time, ready=never)
        assert caught.value.code == "not-for-the-internet"
    with pytest.raises(EnvironmentLacking) as lacking:
        serve_mirror(path, "192.0.2.1", 0, clock=time.time, ready=never, anywhere=True)
    assert lacking.value.code == "port-unavailable"


def test_a_host_that_is_none_is_told_as_that(served: Served, never: Callable[[str], None]) -> None:
    """It was a port that cannot be listened on: Unknown error -2."""
    _, _, _, path = served
    with pytest.raises(UsageError, match="'no host' is no address to listen on") as caught:
        serve_mirror(path, "no host", 0, clock=time.time, ready=never)
    assert caught.value.code == "host-unknown"


@pytest.fixture
def never() -> Callable[[str], None]:
    def ready(url: str) -> None:
        raise AssertionError(url)

    return ready


def test_what_is_neither_is_refused(tmp_path: Path, never: Callable[[str], None]) -> None:
    with pytest.raises(UsageError) as caught:
        serve_mirror(tmp_path, "127.0.0.1", 0, clock=time.time, ready=never)
    assert caught.value.code == "not-a-mirror"


def test_a_digest_is_not_a_tag(served: Served) -> None:
    client, _, _, _ = served
    assert ask(client, f"/v2/tiny/manifests/{Digest.of(b'x').hex}").status == 404


# --- links that somebody planted


def test_a_planted_link_leads_nowhere(served: Served, tmp_path: Path) -> None:
    """Whoever can write to a mirror must not read the host's files through it."""
    client, _, put, path = served
    secret = tmp_path / "secret"
    secret.write_bytes(b"root:$6$not for anybody")
    blobs = path / "blobs" / "sha256"
    planted = Digest.of(secret.read_bytes())
    (blobs / planted.hex).symlink_to(secret)
    assert ask(client, f"/v2/tiny/blobs/{planted}").status == 404
    (tmp_path / "elsewhere").mkdir()
    real = references(put).blobs[0].digest
    (blobs / real.hex).rename(tmp_path / "elsewhere" / real.hex)
    (blobs / real.hex).symlink_to(tmp_path / "elsewhere" / real.hex)
    assert ask(client, f"/v2/tiny/blobs/{real}").status == 404
    blobs.rename(tmp_path / "blobs of another")
    blobs.symlink_to(tmp_path / "blobs of another")
    for one in (planted, real, references(put).blobs[1].digest):
        assert ask(client, f"/v2/tiny/blobs/{one}").status == 404


def test_a_manifest_that_is_a_planted_link_is_not_given(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    put = mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    file = mirror.place.paths("tiny").manifest_file(put.descriptor)
    file.rename(tmp_path / "manifest")
    file.symlink_to(tmp_path / "manifest")
    client = application(open_pull_source(tmp_path / "mirror", clock=time.time))
    assert ask(client, f"/v2/tiny/manifests/{put.digest}").status == 404
    assert ask(client, "/v2/tiny/manifests/1.0").status == 404


def test_a_planted_fifo_blocks_nobody(served: Served) -> None:
    client, _, _, path = served
    os.mkfifo(path / "blobs" / "sha256" / ("0" * 64))
    assert ask(client, f"/v2/tiny/blobs/{NOTHING}").status == 404


def test_an_answer_names_no_path_of_this_machine(served: Served, tmp_path: Path) -> None:
    client, _, put, path = served
    for file in path.rglob(f"{put.digest.hex}*"):
        file.write_bytes(b"damaged")
    answer = ask(client, f"/v2/tiny/manifests/{put.digest}")
    assert answer.status in (404, 500)
    assert str(tmp_path).encode() not in answer.content


# --- images that failed


def test_an_image_that_did_not_pass_is_not_served(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    made = mirror_images.image(store, 1)
    write_layout(made, store=store, target=tmp_path / "tiny")
    refuse_untested(tmp_path / "tiny")  # from elsewhere: no report
    report = tmp_path / "tiny.report"
    report.mkdir()
    with pytest.raises(PublicationRefused, match="did not pass") as refused:
        refuse_untested(tmp_path / "tiny")
    assert refused.value.code == "gate-not-passed"
    assert "--untested" in str(refused.value)
    (report / "evidence.json").write_bytes(evidence_json(evidence(image())))
    with pytest.raises(PublicationRefused, match="not tested in its current state"):
        refuse_untested(tmp_path / "tiny")
    (report / "evidence.json").write_bytes(evidence_json(replace(evidence(image()), image=made.digest)))
    refuse_untested(tmp_path / "tiny")


def test_an_image_that_did_not_pass_is_not_served_under_another_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    write_layout(mirror_images.image(store, 1), store=store, target=tmp_path / "tiny")
    (tmp_path / "tiny.report").mkdir()
    (tmp_path / "link").symlink_to("tiny")
    monkeypatch.chdir(tmp_path / "tiny")
    for path in (Path(), tmp_path / "link"):
        with pytest.raises(PublicationRefused, match="did not pass"):
            refuse_untested(path)


@pytest.fixture
def built_index(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """The layout of an index, and the evidence files of its images, which all passed."""
    store = Store.open(tmp_path / "store")
    base = [layer(store, "base", {"etc": None})]
    files, images = {}, []
    for arch, architecture in (("x86_64", "amd64"), ("aarch64", "arm64")):
        one = make_image("tiny", "1.0", replace(CONFIG, architecture=architecture), base)
        write_layout(one, store=store, target=tmp_path / f"tiny.{arch}")
        files[arch] = tmp_path / f"tiny.{arch}.report" / "evidence.json"
        files[arch].parent.mkdir()
        files[arch].write_bytes(evidence_json(replace(evidence(image()), image=one.digest)))
        images.append(one)
    write_index_layout(images, store=store, target=tmp_path / "tiny")
    return tmp_path / "tiny", files


def test_an_index_is_served_if_each_of_its_images_passed(built_index: tuple[Path, dict[str, Path]]) -> None:
    layout, files = built_index
    refuse_untested(layout)
    layout.with_name("tiny.report").mkdir()  # of one image, which the layout had before
    refuse_untested(layout)
    files["aarch64"].write_bytes(evidence_json(evidence(image())))
    with pytest.raises(PublicationRefused, match=r"for aarch64 .* was not tested in its current state") as refused:
        refuse_untested(layout)
    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].place == str(files["aarch64"].parent)
    files["aarch64"].unlink()
    files["x86_64"].unlink()
    with pytest.raises(PublicationRefused, match=r"for x86_64 .* did not pass") as refused:
        refuse_untested(layout)
    assert [problem.code for problem in refused.value.problems] == ["gate-not-passed"] * 2


def test_an_index_with_an_image_without_any_report_is_not_served(built_index: tuple[Path, dict[str, Path]]) -> None:
    layout, files = built_index
    for file in files.values():
        shutil.rmtree(file.parent)
    with pytest.raises(PublicationRefused, match="for aarch64"):
        refuse_untested(layout)


def test_an_index_from_elsewhere_is_served(built_index: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    layout, _ = built_index
    copy = shutil.copytree(layout, tmp_path / "elsewhere" / "tiny")
    refuse_untested(copy)  # its images are not beside it
    copy.with_name("tiny.report").mkdir()
    with pytest.raises(PublicationRefused, match="did not pass"):
        refuse_untested(copy)


# --- who is answered when many ask


def test_requests_beyond_the_limits_are_told_to_come_again() -> None:
    release, refused = asyncio.Event(), []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        refused.append(scope["client"][0])

    async def ask_all() -> None:
        answer = limit_requests(slow, refuse)
        clients = ["10.0.0.1"] * (REQUESTS_AT_ONCE_EACH + 3) + ["10.0.0.2"] * (
            REQUESTS_AT_ONCE - REQUESTS_AT_ONCE_EACH + 1
        )
        tasks = [asyncio.create_task(_called(answer, client)) for client in clients]
        await asyncio.sleep(0)
        assert refused == ["10.0.0.1"] * 3 + ["10.0.0.2"]
        release.set()
        await asyncio.gather(*tasks)
        await _called(answer, "10.0.0.1")
        assert len(refused) == 4

    asyncio.run(ask_all())


async def _called(application: ASGIApp, client: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None: ...

    await application({"type": "http", "client": (client, 1)}, receive, send)
