"""A registry as a mirror, against a registry of distribution-spec 1.1 that fails on demand."""
