"""The trainer of a fleet's workers: Ray Train without the processes and imports that the fleet does not use.

`TorchTrainer` lets its controller import torch, and starts a process for data sets, one that cleans up behind
controllers, and one that asks the cluster to grow: four to six seconds of processor time, before the first worker
begins. Where a later Ray builds these in another way, they come back, and the fleet works as before.
"""

from collections.abc import Sequence
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class NoDatasets(WorkerGroupCallback):
    """In place of Ray's callback for data sets, whose process no worker of a fleet asks: they read a feature store."""

    def before_init_train_context(self, workers: Sequence[Any]) -> dict[str, list[Any]]:
        """What the context of each worker holds instead of a provider of data."""
        return {"dataset_shard_provider": [None] * len(workers)}


class WorkersOfOneNode(FixedScalingPolicy):
    """As many workers as were asked for, without the process that asks a cluster for more nodes: there are none."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ray's would start that process here, and register the workers with it."""

    def _maybe_send_resource_request(self) -> None:
        """Ray's would register them again, each time that it looks at them."""


class GroupTrainer(DataParallelTrainer):
    """As Ray's, without data sets. The workers never speak to each other, so there is no backend."""

    def __init__(self, *arguments: Any, own_cluster: bool, **options: Any) -> None:
        """own_cluster: the cluster is this machine and ends with its driver, so that no controller can leave a
        reservation behind, and no node can join.
        """
        super().__init__(*arguments, **options)
        self._own_cluster = own_cluster

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = []
        for callback in super()._create_default_callbacks():
            name = type(callback).__name__
            if name == "DatasetsCallback":
                callbacks.append(NoDatasets())
            elif name != "PlacementGroupCleanerCallback" or not self._own_cluster:
                callbacks.append(callback)
        return callbacks

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        asked = parts.get("scaling_policy")
        if self._own_cluster and type(asked) is FixedScalingPolicy:
            parts["scaling_policy"] = WorkersOfOneNode(asked.scaling_config)
        return super()._initialize_and_run_controller(**parts)
