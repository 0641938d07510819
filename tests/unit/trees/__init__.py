"""Unit tests of `trees`."""
