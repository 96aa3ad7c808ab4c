"""The outside world: Ray, Optuna, MLflow, the terminal, the command line. Nothing outside this folder imports it.

May import: `platform/edge/tracking`, for `mlflow_model`, the module that models saved by earlier versions name.
"""
