"""Unit tests of `ground`."""
