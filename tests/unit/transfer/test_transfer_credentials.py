"""Where credentials are found, as containers-auth.json(5) and docker's documentation say."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import EnvironmentLacking
from pipeline.transfer import Credentials, CredentialStore


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def credential_store(path: Path, **document: object) -> CredentialStore:
    path.write_text(json.dumps(document))
    return CredentialStore.of({"REGISTRY_AUTH_FILE": str(path)})


def write(path: Path, user: str, host: str = "host") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: auth(user, "p")}}))
    return path


def test_the_longest_key_that_holds_the_repository_counts(tmp_path: Path) -> None:
    auths = {
        "host:5000": auth("host", "1"),
        "host:5000/team": auth("team", "2"),
        "host:5000/team/app": auth("app", "3"),
    }
    found = credential_store(tmp_path / "auth.json", auths=auths)
    assert found.find("host:5000", "team/app") == Credentials("app", "3")
    assert found.find("host:5000", "team/other") == Credentials("team", "2")
    assert found.find("host:5000", "teams") == Credentials("host", "1")
    assert found.find("host:5000") == Credentials("host", "1")
    assert found.find("host") is None


def test_docker_writes_urls_as_keys(tmp_path: Path) -> None:
    found = credential_store(tmp_path / "config.json", auths={"https://host/v1/": auth("user", "with:colon")})
    assert found.find("host", "a/b") == Credentials("user", "with:colon")


@pytest.mark.parametrize(
    ("key", "host", "sent"),
    [
        ("host", "host", False),
        ("https://host/v1/", "host", False),
        ("https://host:5000", "host:5000", False),
        ("host:443", "host:443", False),
        ("[2001:db8::1]", "[2001:db8::1]", False),
        ("http://host", "host", True),
        ("http://host/v2/", "host", True),
        ("host:80", "host:80", True),
        ("host:5000/team", "host:5000", True),
        ("[2001:db8::1]:5000", "[2001:db8::1]:5000", True),
    ],
)
def test_a_login_that_may_be_for_tls_is_not_sent_without(tmp_path: Path, key: str, host: str, sent: bool) -> None:
    found = credential_store(tmp_path / "auth.json", auths={key: auth("user", "geheim")})
    assert found.find(host, "team/app") == Credentials("user", "geheim")
    if sent:
        assert found.find(host, "team/app", plain=True) == Credentials("user", "geheim")
        return
    with pytest.raises(EnvironmentLacking) as caught:
        found.find(host, "team/app", plain=True)
    assert caught.value.code == "credentials-need-tls"
    assert f"'http://{host}'" in str(caught.value.problems[0].hint) and "geheim" not in str(caught.value)
    assert found.find("another", plain=True) is None


def test_the_login_without_tls_is_kept_beside_that_with_it(tmp_path: Path) -> None:
    pairs = [("host", auth("with", "1")), ("http://host", auth("without", "2")), ("host/team", auth("team", "3"))]
    for auths in (dict(pairs), dict(reversed(pairs))):
        found = credential_store(tmp_path / "auth.json", auths=auths)
        assert found.find("host", "app") == Credentials("with", "1")
        assert found.find("host", "app", plain=True) == Credentials("without", "2")
        assert found.find("host", "team/app") == Credentials("team", "3")
        assert found.find("host", "team/app", plain=True) == Credentials("without", "2")


def test_a_later_file_may_have_the_login_without_tls(tmp_path: Path) -> None:
    write(tmp_path / ".config/containers/auth.json", "tls")
    write(tmp_path / ".docker/config.json", "plain", "http://host")
    assert CredentialStore.of({"HOME": str(tmp_path)}).find("host", plain=True) == Credentials("plain", "p")


def test_files_are_asked_in_podmans_order(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert CredentialStore.of(environment).find("host") is None
    write(tmp_path / ".docker/config.json", "docker")
    assert CredentialStore.of(environment).find("host") == Credentials("docker", "p")
    write(tmp_path / ".config/containers/auth.json", "config")
    assert CredentialStore.of(environment).find("host") == Credentials("config", "p")
    write(tmp_path / "run/containers/auth.json", "session")
    assert CredentialStore.of(environment).find("host") == Credentials("session", "p")
    named = write(tmp_path / "named.json", "named", "other")
    assert CredentialStore.of({**environment, "REGISTRY_AUTH_FILE": str(named)}).find("host") is None
    write(tmp_path / "elsewhere/config.json", "elsewhere", "third")
    assert CredentialStore.of({**environment, "DOCKER_CONFIG": str(tmp_path / "elsewhere")}).find("third") is not None


def test_a_file_without_the_host_leads_to_the_next(tmp_path: Path) -> None:
    write(tmp_path / ".config/containers/auth.json", "config", "other")
    write(tmp_path / ".docker/config.json", "docker")
    assert CredentialStore.of({"HOME": str(tmp_path)}).find("host") == Credentials("docker", "p")


def test_an_identity_token_is_kept_apart_from_a_password(tmp_path: Path) -> None:
    entry = {**auth("user", ""), "identitytoken": "t"}
    assert credential_store(tmp_path / "f", auths={"host": entry}).find("host") == Credentials(
        "user", identity_token="t"
    )


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert "geheim" not in repr(Credentials("user", "geheim", "geheim"))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": {"host": {"auth": "no base64!"}}}', '{"auths": {"host": {"auth": "bm8gY29sb24="}}}']
)
def test_a_damaged_file_is_named_and_its_content_not_repeated(tmp_path: Path, text: str) -> None:
    (tmp_path / "auth.json").write_text(text)
    with pytest.raises(EnvironmentLacking, match=r"auth\.json") as caught:
        CredentialStore.of({"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}).find("host")
    assert caught.value.code == "credentials-unreadable"
    assert "bm8g" not in str(caught.value)


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path for `docker-credential-…`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(process, "SEARCH_PATH", f"{folder}:{process.SEARCH_PATH}")
    return folder


def helper(folder: Path, name: str, script: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_helpers_are_asked_the_hosts_own_first_and_the_store_last(tmp_path: Path, helpers: Path) -> None:
    own = """[ "$1" = get ] && read -r host; echo "{\\"Username\\": \\"own\\", \\"Secret\\": \\"$host\\"}" """
    helper(helpers, "own", own)
    helper(helpers, "all", """echo '{"Username": "<token>", "Secret": "'"$MARK"'"}'""")
    path = tmp_path / "auth.json"
    document = {"auths": {"host": auth("file", "p"), "two": {}}, "credHelpers": {"three": "own"}, "credsStore": "all"}
    path.write_text(json.dumps(document))
    found = CredentialStore.of({"REGISTRY_AUTH_FILE": str(path), "MARK": "from the environment"})
    assert found.find("three", "a") == Credentials("own", "three")
    assert found.find("host") == Credentials("file", "p")
    assert found.find("two") == Credentials("", identity_token="from the environment")
    for host in ("three", "two"):
        with pytest.raises(EnvironmentLacking) as caught:
            found.find(host, plain=True)
        assert caught.value.code == "credentials-need-tls"
    assert found.find("four:5000", plain=True) == Credentials("", identity_token="from the environment")


def test_a_helper_that_knows_nothing_is_no_error_and_one_that_fails_is(tmp_path: Path, helpers: Path) -> None:
    helper(helpers, "none", "echo credentials not found in native keychain; exit 1")
    helper(helpers, "broken", "echo the key ring is locked; exit 1")
    found = credential_store(
        tmp_path / "f", credHelpers={"host": "none", "locked": "broken", "evil": "../../bin/sh", "gone": "gone"}
    )
    assert found.find("host") is None
    for host, code in (
        ("locked", "credential-helper-failed"),
        ("evil", "credentials-unreadable"),
        ("gone", "program-missing"),
    ):
        with pytest.raises(EnvironmentLacking) as caught:
            found.find(host)
        assert caught.value.code == code
