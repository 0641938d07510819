"""Unit tests of `nightly`."""
