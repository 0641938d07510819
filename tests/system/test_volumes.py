"""Volumes and files from outside, in real instances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.model.smoke import Limits
from pipeline.sandbox import (
    Binding,
    Station,
    kept_volumes,
    launch,
)
from tests.system.bombs import (
    LIMITS,
    blocks,
    bomb,
    eventually,
    make_bomb_root,
)
from tests.system.sandboxed import left_behind, until_logged
from tests.system.tiny import ordinary, unenforced


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_bomb_root(closed)


class TestVolumes:
    def test_data_survives_into_another_instance_with_other_ids(self, root: Path, station: Station) -> None:
        first = bomb(entrypoint=("/bin/sh", "-c", "cat seed; echo kept > new; id -u > who; ls -a | wc -l"))
        first = replace(first, volumes=("/var/lib/server",), working_directory="/var/lib/server")
        second = replace(first, entrypoint=("/bin/sh", "-c", "cat new; stat -c '%u:%g' new . ; rm seed; ls"))
        bases = set()
        with kept_volumes(station) as volumes:
            said = []
            for image in (first, second):
                with launch(
                    image, [root], Limits(volume=8 << 20), station=station, name="keep", volumes=volumes
                ) as instance:
                    bases.add(instance.berth.base)
                    assert instance.wait(10) == 0, instance.log
                    said.append(instance.log)
        assert len(bases) == (1 if ordinary() else 2)
        assert said[0].startswith(b"from the image\n")
        assert said[1] == b"kept\n27:28\n27:28\nnew\nwho\n"
        assert left_behind(station) == []
        eventually(lambda: not blocks(station.mark))
        if ordinary():
            unenforced("ids that no other sandbox has")

    def test_its_size_is_read_back(self, root: Path, station: Station) -> None:
        with launch(
            bomb("serve", "80", volumes=("/data",)), [root], Limits(), station=station, name="size"
        ) as instance:
            reading = next(one for one in instance.readings() if one.name == "volume /data")
            assert reading.asked == 4 << 30
            if ordinary():
                assert (reading.read, reading.enforced) == (None, False)
                assert "no block device" in reading.reason
                assert instance.execute(["ls", "-A", "/data"]).stdout == b""
                unenforced("the size of volumes")
            assert reading.enforced
            assert reading.read is not None
            assert 0.97 < reading.read / reading.asked <= 1
            assert instance.execute(["ls", "-A", "/data"]).stdout == b""

    def test_what_is_written_and_synced_is_counted(self, root: Path, station: Station) -> None:
        command = "sleep 0.3; dd if=/dev/zero of=/data/x bs=1M count=4 conv=fsync"
        image = replace(bomb(entrypoint=("/bin/sh", "-c", command)), volumes=("/data",))
        with launch(image, [root], LIMITS, station=station, name="io") as instance:
            assert instance.wait(20) == 0
            written = instance.usage().io_written
        if ordinary():
            assert written is None, "no device of its own, so nothing that could be told from others' writing"
            unenforced("counting what is written to volumes")
        assert written is not None
        assert 4 << 20 <= written < 5 << 20

    def test_without_block_devices_it_is_a_directory_and_said_to_be_unlimited(
        self, root: Path, station: Station, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(file: Path) -> tuple[Path, int]:
            raise PermissionError(1, "Operation not permitted", str(file))

        monkeypatch.setattr("pipeline.sandbox.loop.attach", refuse)
        image = bomb(entrypoint=("/bin/sh", "-c", "echo x > /data/y; stat -c '%u' /data/y /data; sleep 100"))
        with launch(replace(image, volumes=("/data",)), [root], Limits(), station=station, name="loose") as instance:
            until_logged(instance, b"27\n27\n")
            reading = next(one for one in instance.readings() if one.name == "volume /data")
            assert (reading.read, reading.enforced) == (None, False)
            assert "not permitted" in reading.reason

    def test_files_of_the_machine_stand_over_the_images(self, root: Path, station: Station, tmp_path: Path) -> None:
        (tmp_path / "conf").write_text("from outside\n")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "inner").write_text("inner\n")
        image = bomb(
            entrypoint=("/bin/sh", "-c", "cat /srv/page /opt/new/conf /data/x/inner; touch /srv/page; echo $A")
        )
        pieces: list[bytes] = []
        with launch(
            replace(image, volumes=("/data",)),
            [root],
            Limits(),
            station=station,
            name="bound",
            environment={"A": "added"},
            bindings=[
                Binding(tmp_path / "conf", "/srv/page"),
                Binding(tmp_path / "conf", "/opt/new/conf"),
                Binding(tmp_path / "folder", "/data/x"),
            ],
            follow=pieces.append,
        ) as instance:
            assert instance.wait(10) == 0
        assert instance.log.startswith(b"from outside\nfrom outside\ninner\ntouch: ")
        assert instance.log.endswith(b"added\n")
        assert b"".join(pieces) == instance.log
