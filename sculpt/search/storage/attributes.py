"""Names of the attributes that sculpt gives to trials, and reads of them."""

ERROR = "error"
"""Of a trial that failed by itself: what went wrong."""

INFEASIBLE = "infeasible"
"""Of a trial whose parameters cannot be run: the reason. Neither it nor any other attempt at it
takes a place in a limit."""

OUT_OF_MEMORY = "out_of_memory"
"""Of a trial whose network turned out too large for the device: the reason. It is infeasible, but
unlike what is found to be so beforehand it counts towards the total."""

STOPPED_BECAUSE = "stopped_because"
"""Of a trial that was stopped early: what it was judged by."""

PROBLEMS = (ERROR, INFEASIBLE, OUT_OF_MEMORY, STOPPED_BECAUSE)
"""What says why a trial has no result; free text."""

RETRY_OF = "failed_trial"
"""System attribute of a retry: the number of the first attempt. Optuna's name, as the next one."""

ATTEMPTS = "retry_history"
"""System attribute of a retry: the numbers of all earlier attempts."""

EXCUSED = "sculpt:excused"
"""System attribute: how many attempts, this one included, do not speak against a trial."""

PROGRESS = "sculpt:progress"
"""System attribute: how far a trial was when its last attempt began that came further."""
