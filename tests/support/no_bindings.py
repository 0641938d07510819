"""A plugin for pytest, for another process of it: rpm's library is called without its Python bindings."""

from pipeline.packages import rpm_bindings

rpm_bindings.binding_folders = lambda: iter(())
