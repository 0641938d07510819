"""Containers: mount image layers as a root file system and run programs isolated in it.

The isolation is a user namespace with ids of its own, no capabilities (or, for building, a few over the
container's own ids), an allow-list of system calls, a network of its own, and control groups. Scriptlets run in
`build_session`, or without privileges in `traced_session`; an image that is tested or run in `launch`. All code for
the runtime, mounts, namespaces and control groups is in this package.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.sandbox.build_container import (
        BuildLimits,
        BuildSession,
        PreparedSession,
        build_session,
        prepare_session,
        session_on,
    )
    from pipeline.sandbox.command_container import CommandResult
    from pipeline.sandbox.command_session import CommandSession
    from pipeline.sandbox.emulation import (
        EMULATION_SLOWDOWN,
        Emulator,
        emulated_architectures,
        emulation_slowdown,
        emulator_label,
        find_emulator,
        native_architectures,
    )
    from pipeline.sandbox.exit_reason import explain_exit
    from pipeline.sandbox.host_check import HostFinding, check_host, missing_programs
    from pipeline.sandbox.instance import Instance
    from pipeline.sandbox.instance_launch import launch
    from pipeline.sandbox.instance_network import InstanceNetwork, open_network
    from pipeline.sandbox.launchers.launcher import (
        KeptVolumes,
        LaunchedInstance,
        Launcher,
        SandboxLauncher,
        as_launcher,
        require_own_sandboxes,
    )
    from pipeline.sandbox.launchers.launcher_kinds import open_launcher
    from pipeline.sandbox.mounts import BindMount
    from pipeline.sandbox.port_forwarding import publish_port, reserve_port
    from pipeline.sandbox.rootfs import RootFs
    from pipeline.sandbox.running_programs import require_running_programs
    from pipeline.sandbox.runtime import Runtime, find_runtime
    from pipeline.sandbox.sandbox_registry import SandboxRegistry, open_sandbox_registry
    from pipeline.sandbox.traced.availability import (
        container_obstacle,
        may_make_containers,
        require_tracing,
    )
    from pipeline.sandbox.traced.inode_records import InodeRecord, InodeRecords, real_mode
    from pipeline.sandbox.traced.recorded_tree import RecordedTree
    from pipeline.sandbox.traced.traced_session import TracedSession, traced_session
    from pipeline.sandbox.volumes import Volumes, open_volumes

__all__ = [
    "EMULATION_SLOWDOWN",
    "BindMount",
    "BuildLimits",
    "BuildSession",
    "CommandResult",
    "CommandSession",
    "Emulator",
    "HostFinding",
    "InodeRecord",
    "InodeRecords",
    "Instance",
    "InstanceNetwork",
    "KeptVolumes",
    "LaunchedInstance",
    "Launcher",
    "PreparedSession",
    "RecordedTree",
    "RootFs",
    "Runtime",
    "SandboxLauncher",
    "SandboxRegistry",
    "TracedSession",
    "Volumes",
    "as_launcher",
    "build_session",
    "check_host",
    "container_obstacle",
    "emulated_architectures",
    "emulation_slowdown",
    "emulator_label",
    "explain_exit",
    "find_emulator",
    "find_runtime",
    "launch",
    "may_make_containers",
    "missing_programs",
    "native_architectures",
    "open_launcher",
    "open_network",
    "open_sandbox_registry",
    "open_volumes",
    "prepare_session",
    "publish_port",
    "real_mode",
    "require_own_sandboxes",
    "require_running_programs",
    "require_tracing",
    "reserve_port",
    "session_on",
    "traced_session",
]
