"""The outside world, one file each: Ray, Optuna, MLflow, and the command line. Nobody imports from here."""
