"""The supervisor's side of an instance: its folder, record and log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.instances.control_server import serve_control
from pipeline.instances.instance_folder import InstanceFolder, create_instance_folder
from pipeline.instances.instance_log import LogFile
from pipeline.instances.instance_record import InstancePhase, InstanceRecord
from pipeline.launch import ImageRun
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.published_port import PublishedPort


@dataclass(slots=True)
class HostedInstance:
    """An instance that this process supervises, made by `host_instance`.

    `clock` returns seconds since the epoch.
    """

    folder: InstanceFolder
    record: InstanceRecord
    log: LogFile
    clock: Callable[[], float]

    @contextlib.contextmanager
    def serving(self, run: ImageRun, stop: Callable[[int | None], None]) -> Iterator[None]:
        """Record that the one instance of `run` runs, and answer other commands meanwhile.

        `stop` is as `serve_control` says.
        """
        (instance,), (ports,) = run.instances, run.ports
        with serve_control(self.folder.path, instance, stop):
            self._write(
                replace(
                    self.record,
                    phase=InstancePhase.RUNNING,
                    started=self._now(),
                    address=instance.address or "",
                    ports=tuple(PublishedPort(host, container) for host, container in ports),
                    limits=instance.readings(),
                )
            )
            yield

    def ended(self, exit_code: int) -> None:
        """Record that it has ended."""
        self._write(replace(self.record, phase=InstancePhase.EXITED, exit_code=exit_code, ended=self._now()))

    def changed(self, changes: tuple[str, ...]) -> None:
        """Record what differs from the image's tested configuration."""
        self._write(replace(self.record, changes=changes))

    def _write(self, record: InstanceRecord) -> None:
        self.folder.write(record)
        self.record = record

    def _now(self) -> int:
        return int(self.clock() * 1000)


@contextlib.contextmanager
def host_instance(
    root: Path, record: InstanceRecord, name: str | None, clock: Callable[[], float]
) -> Iterator[HostedInstance]:
    """Make and lock the folder of a new instance; `record` has no name yet.

    The name is as `create_instance_folder` says. The folder is kept if the instance is detached and was started, or has
    configuration files of its own; else it is removed when the block ends. Raises UsageError `instance-exists`,
    `instance-name-malformed`.
    """
    with create_instance_folder(root, record.product, name) as folder:
        named = replace(record, name=folder.name)
        try:
            folder.write(named)
            log = LogFile(folder.path)
        except BaseException:
            folder.discard()  # A full disk leaves no folder without a record.
            raise
        hosted = HostedInstance(folder, named, log, clock)
        try:
            yield hosted
        finally:
            hosted.log.close()
            started = hosted.record.phase is not InstancePhase.STARTING
            if not (record.detached and started) and not folder.files.exists():
                folder.discard()
