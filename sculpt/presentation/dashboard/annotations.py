"""Notes and layer plots of a study, stored where Optuna's dashboard shows them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from optuna.artifacts import upload_artifact
from optuna.exceptions import StorageInternalError

from sculpt.errors import StorageError
from sculpt.presentation.dashboard.attributes import StudyAttributes
from sculpt.presentation.dashboard.notes import part_note, study_note, trial_note
from sculpt.presentation.figures.pruning import plot_pruning
from sculpt.results.pareto import pareto_document
from sculpt.results.pareto.fronts import ParetoDocument
from sculpt.results.ranking import Ranking, rank
from sculpt.results.records import Results
from sculpt.results.tables.ranking import confirmation_table, ranking_table
from sculpt.storage.failures import LostStorageError
from sculpt.storage.store import PARTS, Store

MOST_PLOTS = 30
"""Layer plots at most, the base's included: each takes about a tenth of a second to draw."""


def annotate(store: Store) -> None:
    """Write the notes of a study and its trials, and draw the layers of its best.

    What is there already is left as it is: layer plots, notes that say the same, and whatever a
    person wrote or edited. So a second call writes only what is new.

    Raises:
        StorageError: the storage cannot be written, or a record is not where it was kept. What
            can be written then is.
    """
    results = Results(store).snapshot()
    try:
        # Optuna writes down that there is a file before it writes the file.
        store.artifacts.check()
        document, front = rank(results), pareto_document(results)
        undrawn = _draw_missing(store, results, _worth_drawing(document, front))
        parts = {end.strip("/"): getattr(store, part) for part, end in PARTS.items()}
        attributes = {
            part: StudyAttributes(study, store.storage) for part, study in parts.items() if study
        }
        pages = {part: found.page for part, found in attributes.items()}
        notes = _trial_notes(store, results, document, front, attributes)
        for part, found in attributes.items():
            if part:
                notes[part][None] = part_note(store.config.study, part, pages[""])
            else:
                notes[part][None] = study_note(document, front["objectives"], pages, MOST_PLOTS)
            found.write_notes(notes[part])
    except (LostStorageError, StorageInternalError, OSError) as error:
        # Optuna's own message says no more than to look at the error that it came from.
        raise StorageError(
            f"study {store.config.study!r} must be writable to keep notes and layer plots in it, "
            f"but is not ({error.__cause__ or error}); mend the permissions of its storage"
        ) from error
    if undrawn:
        raise undrawn[0]


def _worth_drawing(document: Ranking, front: ParetoDocument) -> list[int | str]:
    """Return the trials whose layers are drawn: the base, the front, and the best ranked."""
    ranked = [row["trial"] for row in document["ranking"]]
    base = [trial for trial in ranked if trial == "base"]
    return list(dict.fromkeys(base + [row["trial"] for row in front["front"]] + ranked))[
        :MOST_PLOTS
    ]


def _draw_missing(store: Store, results: Results, trials: list[int | str]) -> list[StorageError]:
    """Draw the layers of trials that have no plot yet; return why some could not be drawn."""
    undrawn = []
    for study in (store.base, store.candidates):
        present = StudyAttributes(study, store.storage).files
        for trial in trials:
            name = _file_name(trial)
            if isinstance(trial, str) and trial != "base":
                continue  # an opponent
            if (trial == "base") != (study is store.base) or name in present:
                continue
            try:
                record = results.record(trial)
            except StorageError as error:
                undrawn.append(error)
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, name)
                plot_pruning(record, {}, path)
                upload_artifact(
                    artifact_store=store.artifacts,
                    file_path=str(path),
                    study_or_trial=study,
                    storage=store.storage,
                )
    return undrawn


def _trial_notes(
    store: Store,
    results: Results,
    document: Ranking,
    front: ParetoDocument,
    attributes: Mapping[str, StudyAttributes],
) -> dict[str, dict[int | None, str]]:
    """Return the notes of the trials that have ended, by number, for each of these studies."""
    table = ranking_table(document)
    facts: dict[tuple[int | str, str | None], dict[str, str]] = {
        (row["trial"], None): table.facts(row, "trial", "parameters") for row in table.rows
    }
    if confirmed := document["confirmation"]:
        table = confirmation_table(confirmed, results.metric)
        for row in table.rows:
            place = row["trial"], row["arm"] or "sculpted"
            facts[place] = table.facts(row, "trial", "mask", "parameters")
    params = {row["trial"]: row["params"] for row in results.rows}
    params["base"] = store.config.model.options
    on_front = {row["trial"] for row in front["front"]}
    bases = [row for row in results.rows if row["role"] == "base"]
    rows = {"base": bases, "": results.rows[len(bases) :], "confirm": results.confirming}
    rows["opponents"] = results.opponent_rows
    params |= {row["trial"]: row["params"] for row in results.opponent_rows}
    notes: dict[str, dict[int | None, str]] = {}
    for part, found in attributes.items():
        files, notes[part] = found.files, {}
        for number, row in enumerate(rows[part]):
            label, arm, state = row["trial"], row.get("arm"), row["state"]
            if state in ("running", "queued"):
                continue
            complete = state == "complete"
            notes[part][number] = trial_note(
                label,
                state,
                params.get(label, {}),
                row["error"],
                facts.get((label, arm), {}) if complete else {},
                arm=arm or "sculpted",
                on_front=complete and arm is None and label in on_front,
                plot=files.get(_file_name(label)) if complete and arm is None else None,
            )
    return notes


def _file_name(label: int | str) -> str:
    return "layers-base.png" if label == "base" else f"layers-trial-{label}.png"
