"""Whether this machine runs programs of an architecture by itself, through an emulator, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.sandbox import emulation
from pipeline.sandbox.emulation import (
    EMULATION_SLOWDOWN,
    Emulator,
    emulated_architectures,
    emulated_by,
    emulation_slowdown,
    find_emulator,
    native_architectures,
)

# As Debian's qemu-user-static registers them.
MAGIC = {
    "arm64": ("7f454c460201010000000000000000000200b700", "ffffffffffffff00fffffffffffffffffeffffff"),
    "s390x": ("7f454c4602020100000000000000000000020016", "ffffffffffffff00fffffffffffffffffffeffff"),
    "riscv64": ("7f454c460201010000000000000000000200f300", "ffffffffffffff00fffffffffffffffffeffffff"),
    "ppc64le": ("7f454c4602010100000000000000000002001500", "ffffffffffffff00fffffffffffffffffeffff00"),
}


@pytest.fixture
def registrations(tmp_path: Path) -> Path:
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "register").write_text("")
    for name, (magic, mask) in MAGIC.items():
        register(tmp_path, name, magic, mask)
    (tmp_path / "jar").write_text("enabled\ninterpreter /usr/bin/jexec\nflags: \noffset 0\nmagic 504b0304\n")
    (tmp_path / "text").write_text("enabled\ninterpreter /usr/bin/text\nflags: \nextension .text\n")
    return tmp_path


def register(folder: Path, name: str, magic: str, mask: str, *, flags: str = "PF", state: str = "enabled") -> None:
    (folder / f"qemu-{name}").write_text(
        f"{state}\ninterpreter /nowhere/{name}-binfmt-P\nflags: {flags}\noffset 0\nmagic {magic}\nmask {mask}\n"
    )


@pytest.mark.parametrize("architecture", sorted(MAGIC))
def test_each_registered_architecture_has_its_own_emulator(registrations: Path, architecture: str) -> None:
    found = find_emulator(architecture, machine="x86_64", registrations=registrations)
    # The interpreter is open in the kernel, so that its file may be missing here.
    assert found == Emulator(f"/nowhere/{architecture}-binfmt-P", True, f"{architecture}-binfmt-P")


@pytest.mark.parametrize(
    ("machine", "architecture"),
    [("x86_64", "amd64"), ("x86_64", "386"), ("aarch64", "arm64"), ("s390x", "s390x"), ("riscv64", "riscv64")],
)
def test_a_machine_needs_none_for_its_own(tmp_path: Path, machine: str, architecture: str) -> None:
    assert find_emulator(architecture, machine=machine, registrations=tmp_path) is None


def test_an_emulators_version_is_asked_for_once_and_again_after_an_upgrade(registrations: Path, tmp_path: Path) -> None:
    qemu, asked = tmp_path / "qemu", tmp_path / "asked"
    entry = registrations / "qemu-arm64"
    entry.write_text(entry.read_text().replace("/nowhere/arm64-binfmt-P", str(qemu)))

    def install(version: str) -> None:
        new = tmp_path / "new"
        new.write_text(f"#!/bin/sh\necho asked >>{asked}\necho qemu-aarch64 version {version}\n")
        new.chmod(0o755)
        os.utime(new, ns=(0, int(version.replace(".", ""))))
        new.replace(qemu)

    def label() -> str:
        found = find_emulator("arm64", machine="x86_64", registrations=registrations)
        assert found is not None
        return found.label

    install("7.2.22")
    assert [label() for _ in range(3)] == ["qemu-aarch64 7.2.22"] * 3 and asked.read_text() == "asked\n"
    install("8.1.50")
    assert [label() for _ in range(3)] == ["qemu-aarch64 8.1.50"] * 3 and asked.read_text() == "asked\n" * 2


def test_without_an_emulator_the_error_names_the_way_out(registrations: Path, tmp_path: Path) -> None:
    (registrations / "qemu-arm64").unlink()
    with pytest.raises(EnvironmentLacking, match="this machine \\(x86_64\\) cannot run programs for arm64") as caught:
        find_emulator("arm64", machine="x86_64", registrations=registrations)
    assert caught.value.code == "architecture-foreign"
    assert "qemu-user-static" in (caught.value.problems[0].hint or "") and "worker" in (
        caught.value.problems[0].hint or ""
    )
    with pytest.raises(EnvironmentLacking, match="binfmt_misc is not mounted"):
        find_emulator("arm64", machine="x86_64", registrations=tmp_path / "nothing")
    with pytest.raises(EnvironmentLacking, match="cannot run programs for sparc64"):
        find_emulator("sparc64", machine="x86_64", registrations=registrations)


@pytest.mark.parametrize(("flags", "state"), [("P", "enabled"), ("PF", "disabled")])
def test_a_registration_counts_if_it_is_enabled_and_holds_in_every_root(
    registrations: Path, flags: str, state: str
) -> None:
    register(registrations, "arm64", *MAGIC["arm64"], flags=flags, state=state)
    with pytest.raises(EnvironmentLacking, match="flag F"):
        find_emulator("arm64", machine="x86_64", registrations=registrations)


def older(folder: Path, name: str) -> None:
    """Make a registration older than the others."""
    os.utime(folder / f"qemu-{name}", ns=(1, 1))


def test_of_two_registrations_the_newest_counts_as_in_the_kernel(registrations: Path) -> None:
    register(registrations, "other", *MAGIC["arm64"])
    for old, new in (("arm64", "other"), ("other", "arm64")):
        os.utime(registrations / f"qemu-{new}", ns=(2, 2))
        older(registrations, old)
        found = find_emulator("arm64", machine="x86_64", registrations=registrations)
        assert found is not None and found.interpreter == f"/nowhere/{new}-binfmt-P"


def test_a_newer_registration_without_the_flag_is_in_the_way(registrations: Path) -> None:
    older(registrations, "arm64")
    register(registrations, "other", *MAGIC["arm64"], flags="P")
    with pytest.raises(EnvironmentLacking, match="newest registration, of '/nowhere/other-binfmt-P', lacks the flag F"):
        find_emulator("arm64", machine="x86_64", registrations=registrations)
    assert "arm64" not in emulated_architectures(registrations)
    older(registrations, "other")
    os.utime(registrations / "qemu-arm64", ns=(2, 2))
    assert "arm64" in emulated_architectures(registrations)


def test_a_registration_for_the_machines_own_programs_counts(registrations: Path) -> None:
    assert find_emulator("arm64", machine="aarch64", registrations=registrations) is not None
    assert find_emulator("amd64", machine="x86_64", registrations=registrations) is None


def test_what_is_emulated_takes_longer(registrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        emulation, "find_emulator", lambda name: Emulator("/q", True, "qemu") if name == "arm64" else None
    )
    assert [emulation_slowdown(name) for name in ("arm64", "amd64")] == [EMULATION_SLOWDOWN, 1]


def test_a_machine_names_its_architecture_without_older_ones_of_the_family() -> None:
    machines = {"x86_64": ("amd64",), "aarch64": ("arm64",), "loongarch64": ("loongarch64",)}
    assert {machine: native_architectures(machine) for machine in machines} == machines


def test_none_counts_where_all_are_switched_off(registrations: Path) -> None:
    (registrations / "status").write_text("disabled\n")
    with pytest.raises(EnvironmentLacking):
        find_emulator("arm64", machine="x86_64", registrations=registrations)


def test_a_command_line_is_shown_without_the_emulator() -> None:
    emulator = Emulator("/usr/libexec/qemu", True, "qemu")
    assert emulator.program_arguments([b"/usr/libexec/qemu", b"/usr/sbin/nginx", b"nginx", b"-g"]) == [b"nginx", b"-g"]
    assert emulator.program_arguments([b"nginx: worker process"]) == [b"nginx: worker process"]
    nameless = Emulator("/usr/libexec/qemu", False, "qemu")
    assert nameless.program_arguments([b"/usr/libexec/qemu", b"/bin/sh", b"-c"]) == [b"/bin/sh", b"-c"]
    assert emulator.program_arguments([b"/usr/libexec/qemu"]) == [b"/usr/libexec/qemu"]


def test_an_interpreter_is_known_by_what_it_is_registered_for(registrations: Path) -> None:
    assert emulated_by("/nowhere/arm64-binfmt-P", registrations) == ("arm64",)
    assert emulated_by("/usr/bin/jexec", registrations) == ()
    assert emulated_by("/nowhere/other", registrations) == ()
