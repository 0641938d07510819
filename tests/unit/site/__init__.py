"""Unit tests of `site`."""
