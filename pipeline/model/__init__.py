"""Data classes of the domain, frozen and without I/O, and pure functions on them."""
