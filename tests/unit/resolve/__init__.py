"""Unit tests of `resolve`."""
