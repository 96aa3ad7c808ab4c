"""Why a launch stops early: Ctrl-C, SIGTERM, or the end of its time."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether a launch should stop early, in order: running cells end their epoch."""

    def __init__(self, seconds: float | None) -> None:
        """`seconds`: from now until the time is up; None: no limit."""
        self.interrupted = threading.Event()
        """Set by the first signal."""
        self.time_up = False
        """The time was up before the work was done and before any signal."""
        self.active = threading.Event()
        """No cell shall start any more."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def new_reason(self) -> str:
        """Why the launch stops, for a person; empty if it does not, or from the second call on."""
        if self.active.is_set():
            return ""
        self.time_up = self._deadline is not None and time.monotonic() >= self._deadline
        if not (self.time_up or self.interrupted.is_set()):
            return ""
        self.active.set()
        if self.time_up:
            return "the time is up: running cells end their epoch. The same command continues."
        return "stopping: running cells end their epoch; once more to stop at once. The same command continues."


@contextlib.contextmanager
def stop_request(seconds: float | None) -> Iterator[StopRequest]:
    """A request that the first SIGINT or SIGTERM makes; the next one raises `KeyboardInterrupt`."""
    request = StopRequest(seconds)

    def handle(number: int, frame: FrameType | None) -> None:
        if request.interrupted.is_set():
            raise KeyboardInterrupt
        request.interrupted.set()

    # Python lets only the main thread handle signals.
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
