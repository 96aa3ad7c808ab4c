"""The Ray Train worker group of a fleet: a thread that runs `fit`, and runs it again when there must be another group.

A group ends for three reasons: all work is done; its workers shall have other shares of a GPU; or what holds it
together was lost. Ray Train survives the loss of workers by itself, but not that of its controller, nor of its small
helper processes, which Ray's memory monitor ends as readily as the process that takes the memory.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

MAX_FAILED_GROUPS = 3
"""Groups in a row that end in an error before any of their workers was heard, after which the fleet gives up."""


class WorkerGroup:
    """Runs a group in a thread until it ends in order."""

    def __init__(
        self, trainer: Callable[[int], Any], *, silence: Callable[[], float], lost: Callable[[Exception], None]
    ) -> None:
        """`trainer`: makes the trainer of the n-th group, from 1; only in the thread, as it imports Ray Train.

        silence: seconds since any worker was heard. lost: called when a group was lost, with the error of its `fit`.
        """
        self._trainer = trainer
        self._silence = silence
        self._lost = lost
        self._again = threading.Event()
        self._deciding = threading.Lock()
        """Held while it is decided whether there will be another group."""
        self._leaving = threading.Event()
        self.error: BaseException | None = None
        """Why there is no group any more."""
        self.alive = False
        """Whether there is a group, or there will be one."""
        self._groups = 0
        self._thread = threading.Thread()

    def start(self) -> None:
        """Starts a group, and returns at once."""
        self.alive = True
        self._thread = threading.Thread(target=self._run, name="fleet-fit", daemon=True)
        self._thread.start()

    def begin_anew(self) -> None:
        """When this group has ended, or if it has, there shall be another. Its workers have to be dismissed."""
        with self._deciding:
            self._again.set()
            if not self.alive and not self._leaving.is_set():
                self.start()

    def leave(self) -> None:
        """There shall be no other group, whatever becomes of this one."""
        self._leaving.set()

    def join(self, seconds: float) -> None:
        """Waits for the end of the last group."""
        self._thread.join(seconds)

    def _run(self) -> None:
        failed_groups = 0
        try:
            while True:
                self._groups += 1
                self._again.clear()
                began = time.monotonic()
                try:
                    self._trainer(self._groups).fit()
                except Exception as error:
                    if self._leaving.is_set():
                        # The fleet shuts Ray down without waiting, which `fit` meets as an error.
                        break
                    failed_groups = failed_groups + 1 if self._silence() > time.monotonic() - began else 0
                    if failed_groups == MAX_FAILED_GROUPS:
                        raise
                    self._lost(error)
                    continue
                # Otherwise `begin_anew` could be called between the check and the end, and no group would follow.
                with self._deciding:
                    if not self._again.is_set():
                        self.alive = False
                        return
        except BaseException as error:
            self.error = error
        self.alive = False
