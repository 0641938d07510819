"""Unit tests of `model`."""
