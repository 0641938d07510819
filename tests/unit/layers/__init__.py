"""Unit tests of `layers`."""
