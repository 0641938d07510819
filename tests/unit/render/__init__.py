"""Unit tests of `render`."""
