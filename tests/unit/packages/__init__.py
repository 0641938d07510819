"""Unit tests of `packages`."""
