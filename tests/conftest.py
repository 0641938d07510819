"""Settings that all tests share."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

from tests.support.examples import examples

# No test asserts a time, the making of inputs on a busy machine included.
settings.register_profile("relbuild", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same inputs in each run: whether a change is taken does not depend on chance. Others look for new ones.
settings.register_profile("same", settings.get_profile("relbuild"), derandomize=True)
# While one works: a tenth of the inputs.
settings.register_profile("fast", settings.get_profile("relbuild"), max_examples=examples(100))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "relbuild"))

# Whoever starts the tests in the background of a script has them ignore SIGINT, and with them all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
