"""What is computed without a study's results in tables: sizes of a space, speeds of a machine."""

from datetime import timedelta
from typing import Any

from rich.table import Table

from sculpt.config import describe_parameters
from sculpt.results.tables import new_table


def check_table(document: dict[str, Any]) -> Table:
    """Show the sizes of a space's corners beside the base."""
    base = document["base"]
    shared = document["budget"]
    budget = "of each network its own" if shared is None else f"{shared:,} parameters"
    title = (
        f"{document['study']}: budget {budget} "
        f"(counting rule {document['counting']}), {document['trials']} trials, "
        f"sampler {document['sampler']}"
    )
    table = new_table(
        title, "parameters", ">dense size", ">sparsity", ">dense MACs", ">memory", "feasible"
    )
    table.add_row(
        f"base: {describe_parameters(base['params'])}",
        f"{base['dense_parameters']:,}",
        "dense",
        f"{base['macs'] / 1e6:,.2f} M",
        f"{base['memory_bytes'] / 2**20:,.0f} MiB",
        "",
    )
    for corner in document["corners"]:
        table.add_row(
            describe_parameters(corner["params"]),
            f"{corner['dense_parameters']:,}",
            f"{corner['sparsity']:.2%}",
            f"{corner['dense_macs'] / 1e6:,.2f} M",
            f"{corner['memory_bytes'] / 2**20:,.0f} MiB",
            "yes" if corner["feasible"] else f"no: {corner['reason']}",
        )
    if predicted := document["predicted"]:
        table.caption = _prediction(predicted["seconds"], predicted["measured_on"])
    return table


def bench_table(document: dict[str, Any]) -> Table:
    """Show measured speeds; see `sculpt.benchmark.throughput.bench`."""
    table = new_table(
        f"{document['study']}: speed", "network", "parameters", "phase", ">images/s", ">seconds"
    )
    compared = any("ratio" in row for row in document["rows"])
    if compared:
        table.add_column("sculpt / standard", justify="right")
    for row in document["rows"]:
        rate, ratio = row["images_per_second"], row.get("ratio")
        table.add_row(
            row["role"].replace("_", " "),
            describe_parameters(row["params"]),
            row["phase"],
            "" if rate is None else f"{rate:,.0f}",
            f"{row['seconds']:,.2f}",
            *([f"{ratio:.2f}" if ratio else ""] if compared else []),
        )
    table.caption = _prediction(document["predicted"]["seconds"], document["device"])
    return table


def _prediction(seconds: float, device: dict[str, Any]) -> str:
    machine = f"{device['name']}, {device['threads']} threads"
    return f"the whole study: about {timedelta(seconds=round(seconds))} h on {machine}"
