"""The search: spaces, samplers, storage, and the run of a study. Optuna is used here."""
