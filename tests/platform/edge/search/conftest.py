"""A store of clips that no trial of a search opens."""

import numpy as np
import pytest

from crossfold.datasets.store.feature_store import FeatureStore
from tests.support.factories import make_store


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> FeatureStore:
    """Six clips without content, four of them to train on."""
    nothing = np.zeros((4, 2))
    clips = [
        {"name": f"c{i}", "partition": part, "labels": nothing, "features": {"audio": nothing, "visual": nothing}}
        for i, part in enumerate(["train"] * 4 + ["validation"] * 2)
    ]
    return make_store(tmp_path_factory.mktemp("stores"), clips, corpus="none")
