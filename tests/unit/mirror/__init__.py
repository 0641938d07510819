"""Unit tests of `mirror`."""
