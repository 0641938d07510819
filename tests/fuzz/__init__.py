"""Readers of foreign bytes, as one function each: what `ci/fuzz` drives, and what the unit tests try on the corpus."""
