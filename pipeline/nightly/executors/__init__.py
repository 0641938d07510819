"""Executors of a night's tasks, a file or a folder for each kind.

Each implements the whole protocol (`pipeline.nightly.executors.executor_protocol`); `open_executor` chooses one.
"""
