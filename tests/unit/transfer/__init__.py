"""Unit tests of `transfer`."""
