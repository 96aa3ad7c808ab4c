"""The trials of a search without Ray: one after the other, in this process.

The study, its sampler and the objective are those of a search on Ray. Asynchronous successive halving is Optuna's, with
the rungs of Ray Tune's; where fewer than `2 * REDUCTION` trials have reached a rung, only the best of them goes on.
As one trial ends before the next begins, two runs of a search choose the same configurations.
"""

import contextlib
import threading
from collections.abc import Callable

from crossfold.platform.edge.search.objective import Progress, TrialFailed, follow
from crossfold.platform.edge.search.result import GRACE_EPOCHS, REDUCTION
from crossfold.platform.edge.search.study import Study, state_name
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.workspace.workspace import Workspace


def run_trials(
    study: Study,
    workspace: Workspace,
    fleet: LocalFleet,
    wanted: int,
    stopping: threading.Event,
    ended: Callable[[str, float | None], None],
) -> None:
    """Runs the trials that a study lacks of `wanted`. A trial that is interrupted stays open, to be repeated.

    stopping: no trial begins once it is set. ended: called with state and value of each trial that ended.
    """
    import optuna
    from optuna.trial import TrialState

    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=GRACE_EPOCHS, reduction_factor=REDUCTION)
    opened = optuna.load_study(study_name=study.name, storage=study.storage, sampler=study.sampler, pruner=halving)
    for _ in range(wanted - study.judged):
        if stopping.is_set():
            return
        trial = opened.ask()
        cells = study.suggest(trial)["cells"]
        last: Progress | None = None
        state, reported = TrialState.FAIL, 0
        course = follow(cells, fleet.queue, workspace, stopping=stopping, poll_seconds=fleet.poll_seconds)
        with contextlib.closing(course), contextlib.suppress(TrialFailed):
            for last in course:
                if last.epoch > reported:
                    trial.report(last.ccc, last.epoch)
                    reported = last.epoch
                if last.finished:
                    state = TrialState.COMPLETE
                elif trial.should_prune():
                    state = TrialState.PRUNED
                    break
        if state is TrialState.FAIL and stopping.is_set():
            return
        value = None if last is None else last.ccc
        opened.tell(trial, value if state is TrialState.COMPLETE else None, state=state)
        ended(state_name(state), value)
