"""Unit tests of `prepare`."""
