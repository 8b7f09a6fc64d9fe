"""Commands that hand out a trained network, and check what was handed out."""

from pathlib import Path
from typing import Annotated

import typer

from sculpt.cli.options import Json, Storage, StudyName, progress_console, show_document


def export(
    study: StudyName,
    trial: Annotated[str, typer.Option(help="A trial's number, base or best.")] = "best",
    seed: Annotated[
        int | None, typer.Option(help="Of the trial's; by default the lowest validation error's.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="A,B,...", help="Formats, or all; the bundle is always written.")
    ] = "bundle",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder; by default STUDY-TRIAL, here.")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write a trained network into a folder, in formats that other programs read.

    Every file is run and compared with the network before it is kept. A model card says how to
    use it without sculpt.

    Example: sculpt export studies/digits.yaml --trial best --format bundle,onnx --output winner
    """
    from sculpt.launch import export_trial
    from sculpt.results.records import open_results
    from sculpt.results.tables.export import export_table

    results = open_results(study, storage)
    chosen = int(trial) if trial.isdigit() else trial
    folder = output or Path(f"{results.config.study}-{trial}")
    names = [name.strip() for name in format.split(",") if name.strip()]
    document = export_trial(results, chosen, folder, names, seed=seed)
    progress_console.print(f"exported: {folder}", highlight=False, markup=False, soft_wrap=True)
    show_document(document, as_json, export_table)


def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What sculpt export wrote.")],
    as_json: Json = False,
) -> None:
    """Check an exported folder: checksums, kept parameters, and the logits of every format.

    Example: sculpt verify winner
    """
    from sculpt.export import verification
    from sculpt.results.tables.export import verification_table

    document = verification.verify(directory)
    show_document(document, as_json, verification_table)
    if not document["ok"]:
        raise typer.Exit(1)
