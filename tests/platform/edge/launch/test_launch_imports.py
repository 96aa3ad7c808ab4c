"""What a launch and its workers import before the first step of training, as all of it delays that step."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        # The driver logs models to MLflow once cells are finished, and only then needs torch.
        (("crossfold.platform.edge.launch.run_sweeps",), {"torch", "mlflow", "ray"}),
        (
            ("crossfold.platform.execution.run_cell", "crossfold.platform.edge.fleet.ray_fleet"),
            {"scipy", "triton", "mlflow", "PIL", "av", "sklearn"},
        ),
    ],
    ids=["driver", "worker"],
)
def test_nothing_is_imported_that_the_first_step_does_not_need(imported, absent):
    code = f"import sys, {', '.join(imported)}; print(*sorted({absent!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
