"""Storage of studies: trials in databases, files, and archives; Optuna, safe for many workers."""
