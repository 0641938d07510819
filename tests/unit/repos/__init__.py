"""Unit tests of `repos`."""
