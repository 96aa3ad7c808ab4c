"""The trials of a search without Ray: one after the other, in this process.

The study, its sampler and the objective are those of a search on Ray. What stops weak trials is Optuna's, with the
rungs of Ray Tune's. In successive halving, where fewer than `2 * REDUCTION` trials have reached a rung, only the best
of them goes on. As one trial ends before the next begins, two runs of a search choose the same configurations.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from crossfold.platform.edge.search.objective import Progress, TrialFailed, follow
from crossfold.platform.edge.search.samplers import pruner_of
from crossfold.platform.edge.search.study import Study, state_name
from crossfold.platform.scheduling.local_fleet import LocalFleet
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.sweeps.sweep_files import Budget


def run_trials(
    study: Study,
    workspace: Workspace,
    fleet: LocalFleet,
    limits: "Budget",
    stopping: threading.Event,
    ended: Callable[[str, float | None], None],
) -> None:
    """Runs trials until one of the limits is reached. A trial that is interrupted stays open, to be repeated.

    stopping: no trial begins once it is set. ended: called with state and value of each trial that ended.
    """
    import optuna
    from optuna.trial import TrialState

    pruner, costs = pruner_of(study.search), study.search.objective[1:]
    opened = optuna.load_study(study_name=study.name, storage=study.storage, pruner=pruner)
    while not (stopping.is_set() or study.is_over(limits)):
        opened.sampler = study.sampler
        trial = opened.ask()
        cells = study.suggest(trial)["cells"]
        last: Progress | None = None
        state, reported = TrialState.FAIL, 0
        course = follow(cells, fleet.queue, workspace, stopping=stopping, poll_seconds=fleet.poll_seconds)
        with contextlib.closing(course), contextlib.suppress(TrialFailed):
            for last in course:
                if last.epoch > reported and not costs:
                    trial.report(last.ccc, last.epoch)
                    reported = last.epoch
                if last.finished:
                    state = TrialState.COMPLETE
                elif not costs and trial.should_prune():
                    state = TrialState.PRUNED
                    break
        if state is TrialState.FAIL and stopping.is_set():
            return
        study.note_ended(trial, state_name(state), 0 if last is None else last.cell_epochs)
        value = None if last is None else last.ccc
        values = [last.ccc, *(last.costs[name] for name in costs)] if last is not None and last.finished else None
        opened.tell(trial, values, state=state)
        ended(state_name(state), value)
