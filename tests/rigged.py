"""Studies whose trials are made up: kept in a real storage, or as a table alone."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console
from whole_records import whole_record

from sculpt.config import Task
from sculpt.record import TrialRecord
from sculpt.results.records import Results, open_results
from sculpt.storage.opening import start_store
from sculpt.storage.store import Store
from sculpt.storage.trial_files import FILES, RECORD_FILE, summary
from sculpt.study_file import load_study
from sculpt.typed_json import from_json
from studies import write_study

SIZE = 4874


def rigged_store(folder: Path, images: str = "no images", **changes: Any) -> Store:
    """Start the tiny study in a folder, and train nothing."""
    folder.mkdir(exist_ok=True)
    settings = {"search__objectives": ["val_error", "kept_macs"]} | changes
    return start_store(load_study(write_study(folder, **settings)), images, 99)


def results_of(store: Store) -> Results:
    """Read a study anew, as another process would."""
    return open_results(store.config.study, store.config.storage_url)


def attributes(errors: Sequence[float], role: str = "candidate", **changes: Any) -> dict[str, Any]:
    """Return what is kept of a finished trial with these validation errors."""
    record = whole_record(errors, role=role, runs=[])
    found = summary(from_json(TrialRecord, record, "a record"))
    objectives = record["objectives"] | {"kept_macs": changes.get("kept_macs", 1000.0)}
    return found | {"objectives": objectives} | changes


def add_trial(
    study: optuna.Study,
    found: dict[str, Any],
    params: dict[str, Any] | None = None,
    state: TrialState = TrialState.COMPLETE,
    system: dict[str, Any] | None = None,
    distribution: BaseDistribution | None = None,
) -> None:
    """Add a trial to one of the studies of a store; `system` says where its record lies."""
    values = [found.get(key, 0.0) for key in ("val_error_mean", "kept_macs")]
    given = params or {}
    study.add_trial(
        create_trial(
            state=state,
            values=values[: len(study.directions)] if state is TrialState.COMPLETE else None,
            params=given,
            distributions=dict.fromkeys(given, distribution or IntDistribution(0, 10**6)),
            user_attrs=found,
            system_attrs=system,
        )
    )


def keep_record(store: Store, record: dict[str, Any]) -> dict[str, Any]:
    """Write a trial's record to a store's artifacts; return what says of the trial where it is."""
    name = uuid4().hex
    store.artifacts.write(name, BytesIO(json.dumps(record).encode()))
    meta = {"artifact_id": name, "filename": RECORD_FILE, "mimetype": "application/json"}
    # As Optuna, and its dashboard, know of it.
    return {FILES: {RECORD_FILE: name}, f"artifacts:{name}": json.dumps(meta | {"encoding": None})}


def printed(renderable: Any, width: int = 200) -> str:
    """Return what a terminal of so many columns shows."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


class RiggedResults:
    """What `rank` asks of `Results`, of rows in memory: a thousand studies in seconds."""

    confirmed = None

    def __init__(self, rows: list[dict[str, Any]]):
        self.opponent_rows: list[dict[str, Any]] = []
        self.rows = self.finished = [{"state": "complete", "params": {}} | row for row in rows]
        self.config = SimpleNamespace(
            study="rigged",
            budget="base",
            model=SimpleNamespace(options={}),
            published=None,
            opponents=[],
            counts_macs=False,
            task=Task(),
        )

    def snapshot(self) -> "RiggedResults":
        return self

    def tally(self) -> dict[str, int]:
        return {"total": len(self.rows), "complete": len(self.rows)}
