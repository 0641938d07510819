"""Unit tests of `recipes`."""
