"""Unit tests of `build`."""
