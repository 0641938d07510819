"""Implementations of `pipeline.mirror.protocol`, one folder for each kind of mirror."""
