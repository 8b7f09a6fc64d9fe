"""Commands that compute: check a study, look at one candidate, measure its speed."""

from pathlib import Path
from typing import Annotated

import typer

from sculpt.cli.options import (
    Device,
    Json,
    Set,
    Storage,
    StudyFile,
    load,
    load_candidate,
    progress_console,
    show_document,
)


def check(
    study: StudyFile, set: Set = None, storage: Storage = None, as_json: Json = False
) -> None:
    """Validate a study and show the size of every corner of its space; trains nothing.

    Example: sculpt check studies/cifar10_smoke.yaml
    """
    from sculpt.benchmark.prediction import predict
    from sculpt.results.tables.computing import check_table
    from sculpt.search.images import describe_data, missing_data
    from sculpt.search.sampling.feasibility import check_study

    config = load(study, set, storage)
    document = check_study(config, describe_data(config))
    document["predicted"] = predict(config, document["trials"])
    if missing := missing_data(config):
        progress_console.print(f"note: {missing}", style="yellow", markup=False, highlight=False)
    show_document(document, as_json, check_table)


def diagnose(
    study: StudyFile,
    set: Set = None,
    device: Device = "auto",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw layer sparsities and scores.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prune one candidate and show its layers and signal propagation; trains nothing.

    --set params.KEY=VALUE chooses a value of the space; other keys change the study.

    Example: sculpt diagnose studies/digits.yaml --set params.widening=2 --plot layers.png
    """
    from sculpt.launch import diagnose_candidate
    from sculpt.results.figures import plot_pruning
    from sculpt.results.tables.diagnosis import diagnosis_tables

    config, params = load_candidate(study, set, None)
    document, sculpted = diagnose_candidate(config, params, device=device)
    if plot is not None:
        plot_pruning(document, sculpted.scores, plot)
    show_document(document, as_json, diagnosis_tables)


def bench(
    study: StudyFile,
    set: Set = None,
    storage: Storage = None,
    device: Device = "auto",
    against_standard: Annotated[
        bool, typer.Option("--against-standard", help="Train by a plain PyTorch loop too.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements; medians count.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of a measured epoch, about.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Measure the speed of this machine on a study, and predict what running it takes.

    Measures the base and the corners of the space; --set params.KEY=VALUE chooses one candidate.

    Example: sculpt bench studies/digits.yaml --against-standard
    """
    from sculpt.benchmark import throughput
    from sculpt.results.tables.computing import bench_table

    config, params = load_candidate(study, set, storage)
    document = throughput.bench(
        config,
        params,
        device=device,
        against_standard=against_standard,
        effort=throughput.Effort(repeats, seconds),
        on_network=lambda name: progress_console.print(f"measuring {name}", highlight=False),
    )
    show_document(document, as_json, bench_table)
