"""Directory mirror: files that any web server can serve as a registry."""
