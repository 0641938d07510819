"""Whatever is published, promoted, rolled back or copied passed its tests, by every command."""
