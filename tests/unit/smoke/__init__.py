"""Unit tests of `smoke`."""
