"""Which helpers the worker group of a fleet has. No cluster is started."""

import subprocess
import sys

import pytest

from crossfold.platform.edge.fleet.ray_connection import use_settings


@pytest.mark.parametrize("own_cluster", [True, False])
def test_the_group_has_no_process_that_it_does_not_use(own_cluster):
    use_settings(own_cluster=own_cluster)
    from crossfold.platform.edge.fleet.group_trainer import GroupTrainer, NoDatasets

    trainer = GroupTrainer(print, own_cluster=own_cluster)
    callbacks = trainer._create_default_callbacks()
    names = [type(callback).__name__ for callback in callbacks]
    assert "DatasetsCallback" not in names
    # On a cluster of others a controller that dies leaves its reservation behind.
    assert ("PlacementGroupCleanerCallback" in names) == (not own_cluster)
    assert "BackendSetupCallback" in names, "the others stay"
    provided = [each for each in callbacks if isinstance(each, NoDatasets)]
    assert provided[0].before_init_train_context(["a", "b"]) == {"dataset_shard_provider": [None, None]}


def test_on_a_cluster_of_our_own_no_process_asks_for_more_nodes(monkeypatch):
    """Ray's policy would start a process for that, which imports Ray Train while the workers want the cores."""
    use_settings(own_cluster=True)
    from ray.train.v2._internal.execution.scaling_policy import create_scaling_policy
    from ray.train.v2.api.config import ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from crossfold.platform.edge.fleet.group_trainer import GroupTrainer, WorkersOfOneNode

    given = []

    def started(trainer, **parts):
        given.append(parts["scaling_policy"])

    monkeypatch.setattr(DataParallelTrainer, "_initialize_and_run_controller", started)
    config = ScalingConfig(num_workers=3)
    for own_cluster in (True, False):
        trainer = GroupTrainer(print, own_cluster=own_cluster, scaling_config=config)
        trainer._initialize_and_run_controller(scaling_policy=create_scaling_policy(config))
    ours, rays = given
    assert type(ours) is WorkersOfOneNode
    assert type(rays) is not WorkersOfOneNode, "a cluster of others may grow"
    ours.after_controller_start(None)
    decision = ours.make_decision_for_non_running_worker_group()
    assert (decision.num_workers, ours._coordinator_client) == (3, None)
    ours.before_controller_abort()


def test_what_the_controller_imports_is_without_torch():
    """It would cost each launch a second of processor time, and memory."""
    code = "import sys, crossfold.platform.edge.fleet.group_trainer, crossfold.platform.edge.fleet.worker_failures"
    code += ", crossfold.platform.scheduling.fleet_options; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
