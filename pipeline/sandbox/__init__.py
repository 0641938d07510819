"""Containers: image layers mounted as a root file system, with programs isolated in it.

An image's layers are made into a root file system, and programs run in it behind a wall.

The wall is a user namespace whose ids nobody else has, no capabilities (or, for building, a few over the
container's own ids), an allow-list of system calls, a network of its own, and control groups. `build_session`
is the place for scriptlets, `launch` for an image that is tested or run. Everything that touches the runtime,
mounts, namespaces or control groups is in here.
"""

from pipeline.sandbox.environment import Finding, check_environment
from pipeline.sandbox.forwarding import publish_port
from pipeline.sandbox.instance import Instance
from pipeline.sandbox.launching import launch
from pipeline.sandbox.network import Network, open_network
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.runtime import Runtime, find_runtime
from pipeline.sandbox.session import BuildLimits, BuildSession, Outcome, build_session
from pipeline.sandbox.stage import Binding
from pipeline.sandbox.station import Station, open_station
from pipeline.sandbox.verdict import what_happened
from pipeline.sandbox.volumes import Volumes, kept_volumes

__all__ = [
    "Binding",
    "BuildLimits",
    "BuildSession",
    "Finding",
    "Instance",
    "Network",
    "Outcome",
    "RootFs",
    "Runtime",
    "Station",
    "Volumes",
    "build_session",
    "check_environment",
    "find_runtime",
    "kept_volumes",
    "launch",
    "open_network",
    "open_station",
    "publish_port",
    "what_happened",
]
