"""Export trained networks as folders, and check and time them."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sculpt.bundle import NETWORK_FILE, read_bundle
from sculpt.config.search import Runtime
from sculpt.errors import InputError
from sculpt.export.folder import (
    FolderLatency,
    Verification,
    check_folder,
    export_network,
    measure_folder,
)
from sculpt.export.latency import TURNS
from sculpt.export.loading import Loaded, load
from sculpt.export.manifest import Facts, LatencyRow, Manifest
from sculpt.recorded_errors import check_errors
from sculpt.registry import FORMATS
from sculpt.results.ranking import Ranking, rank
from sculpt.results.records import Results, open_results
from sculpt.units import Metric


def export_trial(
    study: Results | str | Path,
    trial: int | str = "best",
    directory: str | Path | None = None,
    formats: Sequence[str] = ("bundle",),
    *,
    seed: int | None = None,
) -> Manifest:
    """Export a trained network of a study into a folder.

    Args:
        study: Its results, or an argument of `open_results`.
        trial: A candidate's number, "base", or "best".
        directory: A new folder, or an older export, which is replaced; by default
            `default_directory`.
        formats: Registered names, or "all"; the bundle is always written.
        seed: One of the trial's; by default the one with the lowest validation error.

    Returns:
        The manifest (docs/reference/json.md).

    Raises:
        InputError: there is no such trial, seed or format, or the folder cannot be written.
        StorageError: the network is missing from the study's artifacts.
        ExportError: a format cannot hold the network.
    """
    results = study if isinstance(study, Results) else open_results(study)
    results.store.refuse_archive("a network must come from the study that trained it")
    results = results.snapshot()
    names = FORMATS.names() if "all" in formats else list(formats)
    for name in names:
        FORMATS.get(name)  # before anything is read
    record = results.record(trial)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, NETWORK_FILE)
        results.copy_network(trial, file, seed)
        loaded = load(file)
    facts = _facts(rank(results), record["trial"])
    model = results.config.model
    facts["base_model"] = {"name": model.name, "options": model.options}
    return export_network(loaded, directory or default_directory(results, trial), names, facts)


def default_directory(results: Results, trial: int | str) -> Path:
    """Return the default folder of an exported trial: `STUDY-TRIAL`, here."""
    return Path(f"{results.config.study}-{trial}")


def verify(directory: str | Path, *, data_root: str | Path | None = None) -> Verification:
    """Check an exported folder, and the errors recorded in it where the images are at hand.

    An error agrees if it is counted the same, but for images that are too close to call: other
    arithmetic may decide them otherwise.

    Args:
        directory: Written by `export_trial`; it may come from anybody: nothing in it is executed
            (see `sculpt.export.folder.check_folder`), no plug-in that it names is imported, and it
            does not decide which folder is read for images.
        data_root: Where the images are; by default the environment variable SCULPT_DATA, or `data`
            under the current directory. Nothing is downloaded.

    Returns:
        The checks as a JSON document (docs/reference/json.md).

    Raises:
        InputError: it is not an exported folder, or its network cannot be loaded.
    """
    loaded, checks = check_folder(directory)
    checks += check_errors(loaded, data_root)
    ok = all(check["ok"] is not False for check in checks)
    return {"directory": str(Path(directory)), "ok": ok, "checks": checks}


def latency(
    directory: str | Path,
    results: Results | None = None,
    *,
    runtime: Runtime | None = None,
    turns: int = TURNS,
    on_row: Callable[[LatencyRow], None] = lambda row: None,
) -> FolderLatency:
    """Time an exported network in every runtime of this machine, and record the latencies.

    Args:
        directory: Written by `export_trial`; see `sculpt.export.folder.measure_folder` for what is
            added there.
        results: The study that the network comes from; the latency becomes part of its trial's
            record, too, so that `pareto` can take it for an objective.
        runtime: Its time is recorded; by default the study's `search.latency_runtime`, or PyTorch.
        turns: The medians are taken over them.
        on_row: Called with each row as soon as it is known.

    Returns:
        The table as a JSON document (docs/reference/json.md).

    Raises:
        InputError: it is not an exported folder, the runtime is missing, or the network is not
            one of the study's.
        ExportError: the network cannot be lowered.
    """
    if results:
        results.store.refuse_archive("a latency must be written into a study")
    trial = _origin(load(directory), results) if results else None
    chosen = runtime or (results.config.search.latency_runtime if results else "torch")
    found = measure_folder(directory, chosen, turns=turns, on_row=on_row)
    if results is not None and trial is not None:
        results.keep_latency(trial, found["latency"], found["latency_by"])
    return found


def _origin(loaded: Loaded, results: Results) -> int | str:
    """Find the trial of a study that a network comes from.

    Raises:
        InputError: it is not one of the study's.
    """
    trial, seed = loaded.metadata.get("trial"), loaded.metadata.get("seed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, NETWORK_FILE)
        try:
            if loaded.metadata.get("study") != results.config.study:
                raise InputError(f"it is one of the study {loaded.metadata.get('study')!a:.60}")
            if not isinstance(trial, int | str) or not isinstance(seed, int):
                raise InputError(f"it is of trial {trial!a:.60}, seed {seed!a:.60}")
            results.copy_network(trial, file, seed)
            own = read_bundle(file).state
        except InputError as error:
            raise InputError(
                f"the network must be one of the study {results.config.study}, but {error}; give "
                "the study that it was exported from, or none"
            ) from error
    assert isinstance(trial, int | str)
    state = loaded.model.state_dict()
    if not all(torch.equal(tensor, state[name]) for name, tensor in own.items() if name in state):
        raise InputError(
            f"the network must be one of the study {results.config.study}, but that of trial "
            f"{trial}, seed {seed}, there is another; export it anew"
        )
    return trial


def _facts(document: Ranking, trial: int | str) -> Facts:
    """Return a trial's facts in a ranking, for its model card."""
    row = next((row for row in document["ranking"] if row["trial"] == trial), None)
    found = document["confirmation"]["rows"] if document["confirmation"] else []
    confirmed = next((r for r in found if (r["trial"], r["arm"]) == (trial, "sculpted")), None)
    facts: Facts = {}
    metric = Metric.of_document(document)
    if row and row["role"] == "candidate":
        found_difference = row["difference"]
        facts["verdict"] = row["verdict"]
        if found_difference:
            facts["verdict"] += f", {metric.difference(found_difference)}{metric.points}"
    if confirmed and confirmed["test_error"] and confirmed["difference"]:
        facts["confirmed"] = (
            f"test {metric.name} {metric.spread(confirmed['test_error'])}, "
            f"{metric.difference(confirmed['difference'])}{metric.points} to the base: "
            f"{confirmed['verdict']}"
        )
    return facts
