"""A directory as a mirror, which any web server serves as a registry."""
