"""Mirrors: the places that images are published to and pulled from.

A mirror is a registry, a directory that a web server serves as one, or a layout to carry across an air gap; the
promises are the same (docs/mirrors.md).
"""
