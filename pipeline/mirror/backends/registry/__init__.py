"""A registry as a mirror: the OCI distribution specification 1.1 over HTTP."""
