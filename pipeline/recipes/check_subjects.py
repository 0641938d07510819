"""The subjects of checks as values, made from the documents of the checks."""

from __future__ import annotations

from typing import Any, TypeVar, assert_never

from pipeline.model.checks import CheckKind, Subject
from pipeline.model.checks.account_check import AccountFacts
from pipeline.model.checks.file_check import FileFacts, FileSort
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.checks.image_check import ImageFacts
from pipeline.model.checks.licenses_check import LicenseFacts
from pipeline.model.checks.listening_check import ListeningFacts
from pipeline.model.checks.packages_check import PackageFacts
from pipeline.model.checks.process_check import ProcessFacts
from pipeline.model.image_keys import IMAGE_KEYS, ImageKey, KeyForm
from pipeline.recipes.check_schema import (
    AccountCheckDocument,
    CheckDocument,
    FileCheckDocument,
    HttpDocument,
    ImageCheckDocument,
    ReadyDocument,
)
from pipeline.recipes.renderer import Renderer
from pipeline.yaml_documents import DocumentPath

_Value = TypeVar("_Value")


def plan_subject(
    document: CheckDocument | ReadyDocument, check_kind: CheckKind, path: DocumentPath, renderer: Renderer
) -> Subject | None:
    """Plan the subject of a check; None for kinds that have no more than their answer.

    Problems: `check-contradiction`, and those of values.
    """
    match check_kind:
        case CheckKind.HTTP:
            return _http(_given(document.http), (*path, "http"), renderer)
        case CheckKind.FILE:
            return _file(_given(document.file), (*path, "file"), renderer)
        case CheckKind.PROCESS:
            process, inner = _given(document.process), (*path, "process")
            return ProcessFacts(
                name=renderer.text(process.name, inner, "name"),
                command=renderer.pattern(process.command, inner, "command") or "",
                user=process.user or "",
                count=renderer.rules(process.count, inner, "count") or ProcessFacts().count,
            )
        case (
            CheckKind.LISTENING
            | CheckKind.ACCOUNT
            | CheckKind.PACKAGES
            | CheckKind.IMAGE
            | CheckKind.LICENSES
            | CheckKind.RESTART
        ):
            return None if isinstance(document, ReadyDocument) else _of_image(document, path, renderer)
        case CheckKind.COMMAND | CheckKind.PORT | CheckKind.SOCKET | CheckKind.LOG | CheckKind.STOP:
            return None
        case other:
            assert_never(other)


def _given(value: _Value | None) -> _Value:
    """The part of a document that says its kind, which is therefore there."""
    assert value is not None
    return value


def _of_image(document: CheckDocument, path: DocumentPath, renderer: Renderer) -> Subject | None:
    if document.listening is not None:
        inner = (*path, "listening")
        ports = document.listening.ports
        where = (*inner, "ports") if (*inner, "ports") in renderer.source.document.positions else inner
        return ListeningFacts(
            ports=None if ports is None else renderer.ports(ports, where),
            local=renderer.ports(document.listening.local, inner, "local"),
        )
    if document.account is not None:
        return _account(document.account, (*path, "account"), renderer)
    if document.packages is not None:
        packages, inner = document.packages, (*path, "packages")
        if not packages.present and not packages.absent:
            renderer.refuse("check-empty", "no package is listed", "write present or absent", inner)
        return PackageFacts(
            renderer.words(packages.present, inner, "present"), renderer.words(packages.absent, inner, "absent")
        )
    if document.image is not None:
        return _image(document.image, (*path, "image"), renderer)
    if document.licenses is not None:
        return LicenseFacts(tuple(document.licenses.packages or ()), tuple(document.licenses.without))
    return document.restart


def _http(document: HttpDocument, path: DocumentPath, renderer: Renderer) -> HttpRequest:
    if (document.port is None) == (document.socket is None):
        renderer.refuse(
            "check-contradiction", "a request must have one of 'port' and 'socket'", "write one of them", path
        )
    request = HttpRequest(
        port=renderer.port(document.port, path, "port"),
        socket=document.socket or "",
        path=renderer.text(document.path, path, "path"),
        method=document.method,
        host=renderer.text(document.host, path, "host"),
        headers=tuple((key, renderer.text(value, path, "headers", key)) for key, value in document.headers.items()),
        body=renderer.text(document.body, path, "body"),
        tls=document.tls or document.trust is not None,
        trust=document.trust or "",
    )
    line = "".join((request.method, request.path, request.host, *(part for pair in request.headers for part in pair)))
    if not request.path.startswith("/") or any(letter in line for letter in "\r\n") or " " in request.path:
        message = "invalid HTTP request: the path must start with '/', without spaces or line ends"
        renderer.refuse("request-malformed", message, "write path: /name", path)
    return request


def _file(document: FileCheckDocument, path: DocumentPath, renderer: Renderer) -> FileFacts:
    facts = FileFacts(
        path=document.path,
        absent=document.absent,
        sort=document.sort,
        mode=document.mode,
        owner=document.owner,
        group=document.group,
        size=renderer.rules(document.size, path, "size"),
        sha256=document.sha256 or "",
        text=renderer.rules(document.text, path, "text"),
        target=renderer.rules(document.target, path, "target"),
    )
    if facts.absent and facts != FileFacts(document.path, absent=True):
        message = f"'{document.path}' has 'absent' together with other conditions"
        renderer.refuse("check-contradiction", message, "remove 'absent', or the other conditions", path)
    elif facts.target and facts.sort not in (None, FileSort.SYMLINK):
        renderer.refuse("check-contradiction", "only a symlink has a target", "remove 'type' or 'target'", path)
    return facts


def _account(document: AccountCheckDocument, path: DocumentPath, renderer: Renderer) -> AccountFacts:
    if (document.user is None) == (document.group is None):
        renderer.refuse(
            "check-contradiction", "an account must have one of 'user' and 'group'", "write one of them", path
        )
    if document.group is not None:
        for key in ("uid", "home", "shell", "groups"):
            if getattr(document, key):
                renderer.refuse("check-key-misplaced", f"'{key}' is not applicable to a group", "remove it", path, key)
    return AccountFacts(
        user=renderer.text(document.user, path, "user"),
        group=renderer.text(document.group, path, "group"),
        uid=document.uid,
        gid=document.gid,
        home=document.home,
        shell=document.shell,
        groups=tuple(document.groups),
        absent=document.absent,
    )


def _image(document: ImageCheckDocument, path: DocumentPath, renderer: Renderer) -> ImageFacts:
    return ImageFacts(**{key.name: _setting(key, getattr(document, key.name), path, renderer) for key in IMAGE_KEYS})


def _setting(key: ImageKey, value: Any, path: DocumentPath, renderer: Renderer) -> object:  # noqa: ANN401
    if value is None:
        return None
    match key.form:
        case KeyForm.WORDS:
            return renderer.words(value, path, key.name)
        case KeyForm.PORTS:
            return renderer.ports(value, path, key.name)
        case KeyForm.PATHS:
            return tuple(value)
        case KeyForm.VARIABLES | KeyForm.LABELS:
            return renderer.named_rules(value, path, key.name)
        case KeyForm.USER | KeyForm.FOLDER | KeyForm.SIGNAL:
            return value
        case other:
            assert_never(other)
