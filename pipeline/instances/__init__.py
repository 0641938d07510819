"""Instances that people run: their folders in the store, records, logs, and control sockets.

The process of relbuild that launched an instance (its supervisor) holds the lock of the folder `instances/NAME/`, and
with it all that the instance is made of. Other commands read the record and the log in it, and ask the supervisor
through its control socket. A lock that nobody holds means that the supervisor has ended, however it ended.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.instances.changed_files import (
        ChangedConfiguration,
        keep_files,
        package_variables,
        render_changes,
    )
    from pipeline.instances.control_client import (
        ExecSession,
        open_exec_session,
        request_stop,
        supervisor_pid,
    )
    from pipeline.instances.control_protocol import STOP_LIMIT, ExecRequest
    from pipeline.instances.hosted_instance import HostedInstance, host_instance
    from pipeline.instances.instance_folder import (
        InstanceFolder,
        find_instance,
        list_instances,
    )
    from pipeline.instances.instance_log import read_log
    from pipeline.instances.instance_record import InstancePhase, InstanceRecord, InstanceState, instance_state

__all__ = [
    "STOP_LIMIT",
    "ChangedConfiguration",
    "ExecRequest",
    "ExecSession",
    "HostedInstance",
    "InstanceFolder",
    "InstancePhase",
    "InstanceRecord",
    "InstanceState",
    "find_instance",
    "host_instance",
    "instance_state",
    "keep_files",
    "list_instances",
    "open_exec_session",
    "package_variables",
    "read_log",
    "render_changes",
    "request_stop",
    "supervisor_pid",
]
