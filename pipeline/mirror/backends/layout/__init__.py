"""Layout mirror: an OCI layout as a mirror of one repository, to carry across an air gap."""
