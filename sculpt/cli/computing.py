"""Commands that compute: check a study, look at one candidate, measure its speed."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

import sculpt
from sculpt.cli.options import Device, Json, Set, Storage, StudyFile, overrides, say, show_document
from sculpt.errors import SculptWarning


def check(
    study: StudyFile, set: Set = None, storage: Storage = None, as_json: Json = False
) -> None:
    """Validate a study, and show how large its networks are.

    Sizes and costs of the corners of its space, and whether the budget fits; trains nothing.

    Examples:
        sculpt check studies/digits.yaml
        sculpt check studies/cifar10_smoke.yaml --set budget=50000
    """
    from sculpt.results.tables.computing import check_table

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", SculptWarning)
        document = sculpt.check(study, overrides(set), storage)
    for note in notes:
        say(f"note: {note.message}", style="yellow")
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
    """Prune one candidate; show its layers and signal propagation.

    Trains nothing. --set params.KEY=VALUE chooses a value of the space; other keys change the
    study.

    Examples:
        sculpt diagnose studies/digits.yaml --set params.widening=2
        sculpt diagnose studies/digits.yaml --plot layers.png
    """
    from sculpt.results.tables.trial import diagnosis_tables

    document, _ = sculpt.diagnose_candidate(study, overrides(set), device=device, plot=plot)
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
    """Measure this machine's speed on a study; predict its time.

    Measures the base and the corners of the space; --set params.KEY=VALUE chooses one candidate.

    Examples:
        sculpt bench studies/digits.yaml
        sculpt bench studies/digits.yaml --against-standard
    """
    from sculpt.benchmark.race import Effort
    from sculpt.results.tables.computing import bench_table

    document = sculpt.bench(
        study,
        overrides(set, storage),
        device=device,
        against_standard=against_standard,
        effort=Effort(repeats, seconds),
        on_network=lambda name: say(f"measuring {name}"),
    )
    show_document(document, as_json, bench_table)
