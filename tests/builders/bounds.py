"""What reads bad input must not take long, or much memory."""

import time
import tracemalloc
from contextlib import contextmanager

MOST_BYTES = 64 * 2**20


@contextmanager
def quick_and_small(seconds):
    tracemalloc.start()
    start = time.process_time()
    yield
    taken, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < seconds
    assert peak < MOST_BYTES
