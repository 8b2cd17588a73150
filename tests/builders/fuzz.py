"""How long the fuzzing and crash tests run: short in `make test`, long in `make fuzz`.

A fuzzed test is `@fuzzed @given(...)`: what it draws is either accepted and valid, or refused by an
error of the project. Anything else that is raised is a failure.
"""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
MOMENTS = int(os.environ.get("CRASH_MOMENTS", "1"))  # at which a process of each kind is killed

fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
