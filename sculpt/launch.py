"""Run a study and hand out its results: `sculpt.run`.

Apart from `results`, because asking for results must not wait for PyTorch to be imported.
"""

from pathlib import Path
from typing import Any

from sculpt.config import Study
from sculpt.results.records import Results
from sculpt.search.progress import Watcher
from sculpt.search.study import run_study
from sculpt.study_file import load_study


def run(
    study: str | Path | Study,
    *,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Results:
    """Start a study, or go on with it, until its total of trials is finished.

    Args:
        study:
            A study file, or a loaded one.
        overrides:
            Dotted keys to values, set in the file first, for example {"search.trials": 4}.
        device:
            A torch device, or `auto`.
        watcher:
            Is told of the progress.

    Raises:
        InputError: the study cannot be run as it is; nothing was written.
        SculptError: the base failed, or every candidate did.
    """
    config = study if isinstance(study, Study) else load_study(study, overrides)
    return Results(run_study(config, device=device, watcher=watcher))
