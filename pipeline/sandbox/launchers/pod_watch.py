"""The state of a pod, followed by `kubectl get --watch` in a thread (Pod v1, PodStatus)."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import field, replace

from pipeline import process
from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.launchers.kubectl import Kubectl

_CLIENT_TIMEOUT = 30.0
_PAUSE = 0.5

_SILENCE = 60.0
"""Seconds without an answer of the cluster after which a pod counts as lost: nobody knows whether it still runs."""

_EVENT_LIMIT = 4 << 20
"""Characters of one event: a pod has some thousand."""

_KILLED = 137
"""The exit status of a container that ended without one: its pod was removed, evicted, or is lost."""

_OF_PODS = ("ADDED", "MODIFIED", "DELETED")
"""Events whose object is a pod; that of an ERROR is not, and the client ends after it."""

_ENDED_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodStatus:
    """The state of a pod's only container.

    `exit_code` is None until it has ended. `reason` and `message` are what Kubernetes says about it, such as
    `ImagePullBackOff` or `OOMKilled`; `waiting`: they are why it is not started yet. `image_id` is what its node runs.
    """

    running: bool = False
    ready: bool = False
    exit_code: int | None = None
    image_id: str = ""
    waiting: bool = False
    reason: str = ""
    message: str = ""


def pod_status(pod: object, *, deleted: bool = False) -> PodStatus:
    """Read the state of a pod from its JSON.

    What is missing or of another form counts as not said.
    """
    status = _member(pod, "status")
    statuses = _member(status, "containerStatuses")
    container = statuses[0] if isinstance(statuses, list) and statuses else None
    waiting, running, terminated = (
        _member(_member(container, "state"), name) for name in ("waiting", "running", "terminated")
    )
    code = _member(terminated, "exitCode")
    over = deleted or _member(status, "phase") in _ENDED_PHASES
    source = terminated if isinstance(terminated, dict) else waiting if isinstance(waiting, dict) else status
    if source is status and not over:
        source = _unscheduled(status)
    return PodStatus(
        running=isinstance(running, dict) and not over,
        ready=_member(container, "ready") is True,
        exit_code=code if isinstance(code, int) else _KILLED if over else None,
        image_id=_text(container, "imageID"),
        waiting=not over and not isinstance(running, dict) and not isinstance(terminated, dict),
        reason=_text(source, "reason"),
        message=_text(source, "message"),
    )


def _unscheduled(status: object) -> object:
    """Return the condition that says why a pod has no node, if there is one."""
    conditions = _member(status, "conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if _member(condition, "type") == "PodScheduled" and _member(condition, "status") == "False":
            return condition
    return None


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: object, name: str) -> str:
    found = _member(value, name)
    return found if isinstance(found, str) else ""


def watch_events(read: Callable[[], bytes]) -> Iterator[PodStatus]:
    """Read the events that `kubectl get --watch` prints (`Kubectl.watch`), until the end."""
    decoder, text = json.JSONDecoder(), ""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    while piece := read():
        text = (text + decode(piece)).lstrip()
        while text:
            try:
                event, end = decoder.raw_decode(text)
            except (ValueError, RecursionError):
                if len(text) > _EVENT_LIMIT:
                    return
                break
            text = text[end:].lstrip()
            kind = _member(event, "type")
            if kind in _OF_PODS:
                yield pod_status(_member(event, "object"), deleted=kind == "DELETED")


@dataclass(slots=True)
class PodWatch:
    """A pod that is watched from `start` to `close`."""

    kubectl: Kubectl
    pod: str
    _status: PodStatus = PodStatus()
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: threading.Event = field(default_factory=threading.Event)
    _client: process.Process | None = None
    _thread: threading.Thread | None = None

    @property
    def status(self) -> PodStatus:
        """The latest state."""
        with self._changed:
            return self._status

    def start(self) -> None:
        """Start to watch."""
        self._thread = threading.Thread(target=self._follow, name="pod-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the client, and wait for the thread."""
        with self._changed:
            self._closed.set()
            if self._client is not None:
                process.kill_group(self._client)
        if self._thread is not None:
            self._thread.join()

    def wait_for(self, reached: Callable[[PodStatus], bool], timeout: float) -> PodStatus:
        """Wait up to `timeout` seconds for a state, and return the state then."""
        with self._changed:
            self._changed.wait_for(lambda: reached(self._status), max(0.0, timeout))
            return self._status

    def _tell(self, status: PodStatus) -> None:
        with self._changed:
            if self._status.exit_code is None:
                # A pod that was evicted no longer says what it ran.
                self._status = replace(status, image_id=status.image_id or self._status.image_id)
            self._changed.notify_all()

    def _follow(self) -> None:
        heard = time.monotonic()
        while not self._closed.is_set() and self.status.exit_code is None:
            try:
                told = self._watched()
                told = self._is_there() or told
            except (OSError, RelbuildError):  # kubectl cannot be started now: after the silence the pod counts as lost.
                told = False
            if told:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE:
                self._tell(PodStatus(exit_code=_KILLED, reason="Lost", message="the cluster does not answer any more"))
            self._closed.wait(_PAUSE)

    def _watched(self) -> bool:
        """Watch until the client ends, as it does now and then; return whether it told anything."""
        told = False
        with self._changed:
            if self._closed.is_set():
                return told
            client = self._client = process.start(self.kubectl.watch(self.pod), stdout=process.PIPE)
        assert client.stdout is not None
        with client.stdout as stdout:
            for status in watch_events(lambda: os.read(stdout.fileno(), 65536)):
                told = True
                self._tell(status)
        with self._changed:  # After the wait its number may be another process's: `close` must not end that.
            with contextlib.suppress(ProcessLookupError):
                process.kill_group(client)
            client.wait()
            self._client = None
        return told

    def _is_there(self) -> bool:
        """Ask for the pod once; one that is gone has ended. Return whether the cluster answered."""
        if self._closed.is_set() or self.status.exit_code is not None:
            return True
        asked = process.run(self.kubectl.look_up(self.pod), timeout=_CLIENT_TIMEOUT, check=False)
        if asked.status == 0 and not asked.stdout.strip():
            self._tell(PodStatus(exit_code=_KILLED, reason="Removed", message="the pod was removed"))
        return asked.status == 0
