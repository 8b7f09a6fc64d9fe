"""Where a study's trials are: Optuna's tables, made safe for many workers and machines."""
