"""The outside world: Ray, Optuna, MLflow, the terminal, the command line. Nothing outside this folder imports from
it.

May import: nothing of ours.
"""
