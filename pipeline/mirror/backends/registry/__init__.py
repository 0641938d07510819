"""Registry mirror: any registry with the HTTP API of the OCI distribution specification 1.1."""
