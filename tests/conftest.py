"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No test asserts a time, the making of inputs on a busy machine included.
settings.register_profile("relbuild", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relbuild")
