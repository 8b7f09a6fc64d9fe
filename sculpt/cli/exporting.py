"""Commands that export a trained network, and check and time an exported one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import sculpt
from sculpt.cli.options import Json, Plugins, Storage, StudyName, label, listed, say, show_document

if TYPE_CHECKING:
    from sculpt.export.manifest import LatencyRow


def export(
    study: StudyName,
    trial: Annotated[
        str, typer.Option(help="A trial's number, base, best or an opponent's label.")
    ] = "best",
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
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Write a trained network as files that other programs read.

    Every file is run and compared with the network before it is kept. A model card says how to
    use it without sculpt.

    Examples:
        sculpt export studies/digits.yaml --output winner
        sculpt export studies/digits.yaml --trial 3 --format onnx,c
    """
    from sculpt.exports import default_directory
    from sculpt.results.tables.export import export_table

    results = sculpt.open_results(study, storage)
    folder = output or default_directory(results, trial)
    document = sculpt.export_trial(results, label(trial), folder, listed(format), seed=seed)
    say(f"exported: {folder}")
    show_document(document, as_json, export_table)


def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What sculpt export wrote.")],
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the images are; by default $SCULPT_DATA, or ./data."
        ),
    ] = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Check an exported folder against what was recorded.

    Checksums, kept parameters and the logits of every format. The recorded errors are counted
    again where the images are at hand; none are downloaded.

    Examples:
        sculpt verify winner
        sculpt verify winner --data-root /images --json
    """
    from sculpt.results.tables.export import verification_table

    document = sculpt.verify(directory, data_root=data_root)
    show_document(document, as_json, verification_table)
    if not document["ok"]:
        raise typer.Exit(1)


def latency(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What sculpt export wrote.")],
    study: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY", help="Also write it into this study's record, as an objective."
        ),
    ] = None,
    storage: Storage = None,
    runtime: Annotated[
        Literal["torch", "onnxruntime", "c"] | None,
        typer.Option(help="Whose time is the record's; by default the study's, or torch."),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Of which the medians are taken.")] = 7,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Time an exported network on this machine, beside the base.

    PyTorch, ONNX Runtime and the C code take turns, with 1 and 64 images, on one thread and on
    all. The folder's manifest and card hold the table afterwards.

    Examples:
        sculpt latency winner
        sculpt latency winner --study studies/digits.yaml --runtime c
    """
    from sculpt.results.tables.export import latency_table

    document = sculpt.latency(
        directory,
        sculpt.open_results(study, storage) if study else None,
        runtime=runtime,
        turns=turns,
        on_row=_say_row,
    )
    show_document(document, as_json, latency_table)


def _say_row(row: "LatencyRow") -> None:
    say(
        f"{row['network']} in {row['runtime']}, {row['batch']} image(s), {row['threads']} "
        f"thread(s): {1e3 * row['seconds']['median']:.3f} ms an image"
    )
