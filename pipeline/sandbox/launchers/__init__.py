"""Launchers of images for smoke tests: relbuild's own sandbox, and foreign runtimes.

`launcher` says what a launcher is and what it launches. A kind of foreign launcher is one file that declares its
command lines (`podman`, `docker`, `runsc`) and a line in `launcher_kinds`; nothing else asks which one it is. A cluster
is no engine: `kubernetes_launcher` launches pods by `kubectl`.
"""
