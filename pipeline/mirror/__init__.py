"""Mirrors, to which images are published and from which they are pulled.

A mirror is a registry, a directory that a web server serves as one, or an OCI layout to carry across an air gap. All
give the same guarantees (docs/mirrors.md).
"""
