"""Unit tests of `architecture`."""
