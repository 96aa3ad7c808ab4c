"""Waiting for what another thread or process does."""

import time


def wait_for(condition, seconds=20.0):
    """Until `condition()` holds, looking again 20 times a second; an assertion fails after so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
