"""The `Crew` of a Dask cluster: tasks are done by its workers.

Importing this file needs `distributed`, which a plain installation lacks.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import queue
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import urlsplit

from pipeline.errors import EnvironmentLacking, UsageError

try:
    import distributed
except ImportError as missing:
    raise EnvironmentLacking(
        "cluster-missing",
        f"the cluster executor needs dask and distributed ({missing})",
        hint="pip install 'relbuild[cluster]'",
    ) from missing

from pipeline.model.night import SetAside
from pipeline.nightly.attending import ARCH, CODE, CONTAINERS, MEMORY, TOPIC, Errand, Heard, attend, code, wanted
from pipeline.nightly.crew import Act, Ended, Needs
from pipeline.nightly.ordering import Order
from pipeline.nightly.relaying import Listener
from pipeline.nightly.task_result import read_result
from pipeline.nightly.worker_health import FAULTS, SILENCE, WorkerHealth
from pipeline.progress import Progress

DEATHS = 3
"""So many workers may die under a task. Then it is thought to be the reason."""

_GIVEN_AGAIN = 10
"""So often a task is given anew when a scheduler was lost, or when somebody else took it back."""

_AHEAD = 8
"""Tasks that are given even to a cluster without workers: so one that grows by itself sees what there is to do."""

_CLOSING = 5.0
_PAUSE = 0.1
_TICK = 0.5
_NAMED = 5
"""Workers that are named in a message at most."""

_LOOK = 2.0
"""Seconds between two looks at which workers there are, while nothing happens."""


class _Client(distributed.Client):
    def start(self, **options: float) -> None:
        """Start the client, and close it if it cannot start.

        It is closed here, because its finalizer would wait for a thread that may be its own.
        """
        try:
            super().start(**options)  # type: ignore[no-untyped-call]
        except BaseException:
            self.close(timeout=_CLOSING)
            raise


@dataclass(slots=True)
class _Given:
    """A task that has not ended.

    `attempts` are its beginnings on workers as far as they were heard of, `worker` is where the last was, `times` how
    often it was given and `since` when that was. `only` are the workers that it may be done on (empty: any), `faults`
    those that failed it for what their machines lack, and why.
    """

    name: str
    order: Order
    needs: Needs
    listener: Listener
    future: distributed.Future[bytes] | None = None
    times: int = 0
    attempts: list[str] = field(default_factory=list)
    worker: str = ""
    since: float = 0.0
    only: tuple[str, ...] = ()
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class DaskCrew:
    """The workers of a Dask cluster as a `Crew`. Made by `join`.

    `patience` is how many seconds a lost scheduler is waited for, `wait` how many a worker that can do a task; `health`
    knows which workers are to have none.
    """

    address: str
    progress: Progress
    patience: float
    wait: float
    health: WorkerHealth
    _client: distributed.Client
    _night: str = field(default_factory=lambda: secrets.token_hex(8))
    _given: dict[str, _Given] = field(default_factory=dict)
    _news: queue.SimpleQueue[Heard | distributed.Future[bytes]] = field(default_factory=queue.SimpleQueue)
    _ended: list[Ended] = field(default_factory=list)
    _offers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    _asked: float = float("-inf")
    _strangers: set[str] = field(default_factory=set)
    _hopeless: dict[Needs, float] = field(default_factory=dict)
    _connection: object = None

    @classmethod
    def join(
        cls,
        address: str,
        progress: Progress,
        *,
        plain: bool = False,
        patience: float = 60.0,
        wait: float = 300.0,
        silence: float = SILENCE,
    ) -> Self:
        """Connect to the scheduler at `address`, `tcp://HOST:PORT` or `tls://HOST:PORT`.

        Returns its workers as a crew. `plain`: what is sent, keys included, may be read by others on the way.
        `silence`: see `WorkerHealth`.

        Raises EnvironmentLacking `no-scheduler`; UsageError `scheduler-plain` where a scheduler or a worker is reached
        over plain TCP beyond this machine, and that was not allowed.
        """
        told = _refuse_plain([address], progress, plain=plain)
        # What happens to the connection is told here, once and in words.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            client = _Client(address, timeout=patience, set_as_default=False, name="relbuild")
        except (OSError, ValueError, TypeError) as error:
            raise EnvironmentLacking(
                "no-scheduler",
                f"cannot connect to the scheduler {address}: {error or type(error).__name__}",
                hint="start `dask scheduler` there; for tls:// see docs/cluster.md",
            ) from error
        # A scheduler on this machine may have workers elsewhere, and hands on to them what it is given.
        try:
            with contextlib.suppress(OSError):
                workers = [] if told else [str(one) for one in client.scheduler_info()["workers"]]
                _refuse_plain(workers, progress, plain=plain)
        except UsageError:
            client.close(timeout=_CLOSING)
            raise
        return cls(address, progress, patience, wait, WorkerHealth(silence), client)

    @property
    def size(self) -> int:
        """The number of tasks that are worth giving at a time; see `Crew`.

        It is one task for each place, and one more for each worker, so that none waits for the next.
        """
        places = [int(offer.get(code(), 0)) for offer in self._look().values()]
        return max(_AHEAD, sum(places) + sum(count > 0 for count in places))

    @property
    def set_aside(self) -> tuple[SetAside, ...]:
        """See `Crew`."""
        return self.health.set_aside

    def start(self, name: str, act: Act, work: object, needs: Needs) -> None:
        """See `Crew`."""
        try:
            order = Order.of(act, work, needs.files)
        except UsageError as error:
            self._ended.append(Ended(name, lost=str(error)))
            return
        given = _Given(name, order, replace(needs, files=()), Listener(self.progress, name))
        self._given[name] = given
        if self._client.status == "running" or self._rejoined():
            self._give(given)

    def next_ended(self) -> Ended:
        """See `Crew`."""
        while not self._ended:
            with contextlib.suppress(queue.Empty):
                news = self._news.get(timeout=_TICK)
                if isinstance(news, Heard):
                    self._hear(news)
                else:
                    self._settle(news)
            self._look()
            self._end_hopeless()
        return self._ended.pop(0)

    def close(self) -> None:
        """Cancel all tasks and leave the scheduler; see `Crew`.

        Workers end what they do when they hear of it; one that cannot be reached does not.
        """
        futures = [given.future for given in self._given.values() if given.future is not None]
        self._given.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True)
        self._client.close(timeout=_CLOSING)

    def _listen(self) -> None:
        """Hear what workers tell. A scheduler that came back does not know of it."""
        if self._client.scheduler_comm is self._connection:
            return

        def hear(event: object) -> None:
            heard = Heard.of_night(event, self._night)
            if heard is not None:
                self._news.put(heard)

        self._connection = self._client.scheduler_comm
        self._client.subscribe_topic(TOPIC, hear)

    def _give(self, given: _Given) -> None:
        self._listen()
        given.times += 1
        given.since = time.monotonic()
        able = self._able(given.needs)
        usable = self.health.usable(able, given.faults)
        # Where nothing speaks against any, one that joins later may have it too.
        given.only = usable if set(usable) != able else ()
        given.future = self._client.submit(
            attend,
            Errand(self._night, given.name, given.order, given.needs),
            key=f"relbuild-{self._night}-{given.name}-{given.times}",
            resources=wanted(given.needs),
            workers=list(given.only) or None,
            allow_other_workers=False,
            pure=False,
        )
        given.future.add_done_callback(self._news.put)

    def _hear(self, heard: Heard) -> None:
        given = self._given.get(heard.name)
        if given is None:
            return
        if heard.attempt not in given.attempts:
            if given.attempts:
                given.listener.end()
                self.progress.warn(f"{given.name}: worker {given.worker} was lost; {heard.worker} restarts the task")
            given.attempts.append(heard.attempt)
            given.worker = heard.worker
            if len(given.attempts) > DEATHS:
                self._give_up(given)
                return
        if heard.attempt == given.attempts[-1]:
            for event in heard.events:
                given.listener.hear(event)

    def _settle(self, future: distributed.Future[bytes]) -> None:
        """A future is done: a result, an error, or it was taken back because the scheduler has gone."""
        given = next((given for given in self._given.values() if given.future is future), None)
        if given is None:
            return
        if future.status != "cancelled":
            try:
                ended = read_result(future.result())
            except distributed.KilledWorker:
                # The scheduler also counts the deaths of workers where a task only waited.
                if len(given.attempts) >= DEATHS:
                    self._give_up(given)
                else:
                    self._again(given)
            except distributed.CancelledError:
                self._again(given)
            except ValueError as error:
                self._end(given, lost=f"its worker returned an invalid result: {error}")
            except Exception as error:  # What a worker of a wrong kind may raise is anything.
                self._end(given, lost=f"{type(error).__name__}: {error}")
            else:
                self._done(given, ended)
        elif self._client.status == "running" or self._rejoined():
            given.listener.end()
            given.attempts.clear()
            self._again(given)

    def _done(self, given: _Given, ended: Ended) -> None:
        """A worker did a task, or failed it for what its machine lacks: then another tries."""
        if not ended.fault:
            for worker, why in given.faults.items():
                self.progress.warn(
                    f"{worker} gets no more tasks: {given.name} failed there, but succeeded on {ended.worker}: {why}"
                )
            self.health.blame(given.faults)
            self._end(given, ended.result, ended.lost, ended.worker)
            return
        self.health.fault(ended.worker, ended.fault)
        given.faults[ended.worker] = ended.fault
        if len(given.faults) < FAULTS and self.health.usable(self._able(given.needs), given.faults):
            self.progress.warn(f"{given.name} is retried on another worker; {ended.worker} failed: {ended.fault}")
            given.listener.end()
            given.attempts.clear()
            self._again(given)
            return
        if len(given.faults) > 1:
            self.health.acquit(given.faults)
        self._end(given, ended.result, ended.lost, ended.worker)

    def _again(self, given: _Given) -> None:
        if given.times < _GIVEN_AGAIN:
            self._give(given)
        else:
            self._end(given, lost=f"it was submitted {given.times} times and cancelled each time")

    def _give_up(self, given: _Given) -> None:
        self._end(given, lost=f"{DEATHS} workers died while running it, the last was {given.worker}")

    def _end(self, given: _Given, result: object = None, lost: str = "", worker: str = "") -> None:
        given.listener.end()
        del self._given[given.name]
        if given.future is not None and not given.future.done() and self._client.status == "running":
            given.future.cancel(force=True)
        self._ended.append(Ended(given.name, result, lost, worker or given.worker, tried=tuple(given.faults)))

    def _rejoined(self) -> bool:
        """Wait for a scheduler that was lost, and return True if it came back.

        If it does not come back, all that was given is lost too.
        """
        if self._client.status == "connecting":
            self.progress.warn(
                f"connection to the scheduler {self.address} lost; reconnecting for {self.patience:.0f} s"
            )
        deadline = time.monotonic() + self.patience
        while self._client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        if self._client.status == "running":
            self.progress.warn(f"the scheduler {self.address} is back; running tasks are submitted again")
            return True
        for given in list(self._given.values()):
            self._end(given, lost=f"connection to the scheduler {self.address} lost, and not restored in time")
        return False

    def _look(self) -> Mapping[str, Mapping[str, float]]:
        """Return the resources that workers offer, by their names, as they were some seconds ago."""
        now = time.monotonic()
        if now - self._asked < _LOOK or self._client.status != "running":
            return self._offers
        self._asked = now
        with contextlib.suppress(OSError):  # A scheduler that is lost just now: its futures will tell.
            workers = self._client.scheduler_info()["workers"].values()
            self._offers = {str(worker["name"]): worker["resources"] for worker in workers}
            for name in self.health.look({str(one["name"]): one["last_seen"] for one in workers}, now):
                self._give_elsewhere(name)
        strangers = {name for name, offer in self._offers.items() if code() not in offer} - self._strangers
        if strangers:
            self._strangers |= strangers
            who = "; ".join(f"{name} has {_relbuild_of(self._offers[name])}" for name in sorted(strangers))
            self.progress.warn(f"workers with another relbuild than {_named(code())} get no tasks: {who}")
        return self._offers

    def _give_elsewhere(self, worker: str) -> None:
        """A worker fell silent: what it does, and what may wait for it, is given again."""
        self.progress.warn(f"{worker} sent no heartbeat for {self.health.silence:.0f} s; its tasks are reassigned")
        for given in list(self._given.values()):
            if given.future is not None and (given.worker == worker or not given.attempts):
                future, given.future = given.future, None
                future.cancel(force=True)
                # `attempts` stay: a task under which three workers fall silent is thought to be the reason.
                self._again(given)

    def _end_hopeless(self) -> None:
        """End the tasks that no worker has been able to do for some time.

        They are waited with, because a cluster grows, and its workers start again.
        """
        now = time.monotonic()
        for given in list(self._given.values()):
            if (given.attempts and given.worker in self._offers) or now - given.since < _LOOK:
                continue
            able = self._able(given.needs)
            usable = self.health.usable(able, given.faults)
            if usable and given.only and not able & set(given.only):
                self._again(given)  # All that it was for have left.
            if usable:
                self._hopeless.pop(given.needs, None)
            elif given.needs not in self._hopeless:
                self._hopeless[given.needs] = now
                self.progress.warn(f"{given.name} waits: {self._lacking(given.needs)}")
            elif now - self._hopeless[given.needs] >= self.wait:
                self._end(given, lost=self._lacking(given.needs))

    def _able(self, needs: Needs) -> set[str]:
        """The workers that have what a task needs, as they were at the last look."""
        return {name for name, offer in self._offers.items() if _can(offer, needs)}

    def _lacking(self, needs: Needs) -> str:
        """Return the reason why no worker can do a task with these needs, in words."""
        want = [needs.arch]
        if needs.containers:
            want.append("containers")
        if needs.memory:
            want.append(f"{needs.memory / 2**20:.0f} MiB of memory")
        aside = {one.worker: one.why for one in self.set_aside}
        have = [
            f"{name} is excluded: {aside[name]}" if name in aside else f"{name} has {_had(offer)}"
            for name, offer in sorted(self._offers.items())
        ]
        more = f"; and {len(have) - _NAMED} more" if len(have) > _NAMED else ""
        return f"no worker of the cluster offers {', '.join(want)}: {'; '.join(have[:_NAMED]) or 'no workers'}{more}"


def _refuse_plain(addresses: Sequence[str], progress: Progress, *, plain: bool) -> bool:
    """Refuse to send over plain TCP beyond this machine, or warn of it: True if it warned."""
    exposed = next((one for one in addresses if not _is_private(one)), None)
    if exposed is None:
        return False
    if not plain:
        raise UsageError(
            "scheduler-plain",
            f"{exposed} is not encrypted: the signing key, its password and the tasks could be read and "
            "changed in transit",
            hint="use tls:// (docs/cluster.md), or --plain-scheduler on a trusted network",
        )
    progress.warn(f"{exposed} is not encrypted: tasks and the signing key can be read in transit; use tls://")
    return True


def _is_private(address: str) -> bool:
    """Return whether what is sent to `address` stays on this machine, or travels encrypted."""
    parts = urlsplit(address)
    if parts.scheme in ("tls", "inproc"):
        return True
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _can(offer: Mapping[str, float], needs: Needs) -> bool:
    return all(offer.get(name, 0) >= amount for name, amount in wanted(needs).items())


def _named(token: str) -> str:
    """`RELBUILD-0.1.0-3f2a…` as people say it."""
    _, version, which = token.split("-", 2)
    return f"{version} ({which})"


def _relbuild_of(offer: Mapping[str, float]) -> str:
    return next((_named(name) for name in offer if name.startswith(f"{CODE}-")), "an unknown version")


def _had(offer: Mapping[str, float]) -> str:
    if code() not in offer:
        return f"another relbuild: {_relbuild_of(offer)}"
    words = [name.removeprefix(f"{ARCH}-") for name in offer if name.startswith(f"{ARCH}-")]
    if CONTAINERS in offer:
        words.append("containers")
    words.append(f"{offer.get(MEMORY, 0) / 2**20:.0f} MiB of memory")
    return ", ".join(words)
