"""The trainer of a fleet's workers: Ray Train without the processes and imports that the fleet does not use.

`TorchTrainer` lets its controller import torch, and starts a process for data sets and one that cleans up behind
controllers: three to five seconds of processor time, before the first worker begins. Where a later Ray builds its list
of callbacks in another way, these come back, and the fleet works as before.
"""

from collections.abc import Sequence
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class NoDatasets(WorkerGroupCallback):
    """In place of Ray's callback for data sets, whose process no worker of a fleet asks: they read a feature store."""

    def before_init_train_context(self, workers: Sequence[Any]) -> dict[str, list[Any]]:
        """What the context of each worker holds instead of a provider of data."""
        return {"dataset_shard_provider": [None] * len(workers)}


class GroupTrainer(DataParallelTrainer):
    """As Ray's, without data sets. The workers never speak to each other, so there is no backend."""

    def __init__(self, *arguments: Any, own_cluster: bool, **options: Any) -> None:
        """own_cluster: the cluster ends with its driver, so that no controller can leave a reservation behind."""
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
