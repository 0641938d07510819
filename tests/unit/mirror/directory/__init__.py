"""A mirror in a directory."""
