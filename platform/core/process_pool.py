"""Who works on clips: this process, or several next to it. Ray tasks offer the same (`edge/fleet/task_pool.py`)."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Protocol, TypeVar

from crossfold.platform.core.errors import UserError

Work = Callable[[Any], UserError | None]
"""Works on one task and leaves its result on disk; returns what is wrong with the task's files."""
Result = TypeVar("Result")


class Workers(Protocol):
    """Carries out a piece of work on many tasks, in any order."""

    def __call__(self, work: Work, tasks: Sequence[Any]) -> Iterator[tuple[int, UserError | None]]:
        """Yields the index of each task as it is done, with the error that its files raised."""
        ...


class LocalWorkers:
    """`processes` of them; 1 starts no other process."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __call__(self, work: Callable[[Any], Result], tasks: Sequence[Any]) -> Iterator[tuple[int, Result]]:
        """As in `Workers`, with whatever `work` returns."""
        processes = min(self.processes, len(tasks))
        if processes <= 1:
            yield from ((index, work(task)) for index, task in enumerate(tasks))
            return
        # Spawned, not forked: a fork of a process that has threads can hang.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_die_with_parent)
        try:
            waiting = {pool.submit(work, task): index for index, task in enumerate(tasks)}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent() -> None:
    """Ends this worker when the process that started it is gone; a pool whose owner is killed waits for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
