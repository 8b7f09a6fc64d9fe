"""A study in Optuna's dashboard: notes and layer plots beside its trials, and the server.

`notes` has the words, `annotations` writes them into the study, `server` shows it to browsers.
"""
