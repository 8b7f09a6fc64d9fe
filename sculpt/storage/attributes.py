"""Names of the attributes that sculpt gives to trials."""

ERROR = "error"
"""Message of the failure of a trial that failed by itself."""

INFEASIBLE = "infeasible"
"""Reason why the parameters cannot be run. No attempt at such a trial counts towards a limit."""

OUT_OF_MEMORY = "out_of_memory"
"""Reason of a trial that was too large for the device: infeasible, but it counts towards the
total."""

STOPPED_BECAUSE = "stopped_because"
"""Judgement by which a trial was stopped early."""

PROBLEMS = (ERROR, INFEASIBLE, OUT_OF_MEMORY, STOPPED_BECAUSE)
"""Free texts that say why a trial has no result."""

RETRY_OF = "failed_trial"
"""System attribute of a retry: number of the first attempt (Optuna's name, as the next one)."""

ATTEMPTS = "retry_history"
"""System attribute of a retry: numbers of all earlier attempts."""

EXCUSED = "sculpt:excused"
"""System attribute: number of attempts, this one included, that do not use up the retries."""

PROGRESS = "sculpt:progress"
"""System attribute: progress found at the start of the last attempt that had come further."""

THREADS = "sculpt:threads"
"""System attribute: number of threads that the first attempt computed with, on the CPU."""

PROCESS = "sculpt:process"
"""System attribute: the process that runs a trial, or ran it; see `process_identity`."""

DRAWN = "sculpt:drawn"
"""System attribute: the whole configuration, written before the first of its parameters."""
