"""Tables of sizes of a space and of speeds of a machine."""

from datetime import timedelta

from sculpt.config import describe_parameters
from sculpt.documents import Document
from sculpt.table import Column, Table
from sculpt.units import count, macs, share


def check_table(document: Document) -> Table:
    """Return the sizes of a space's corners beside the base."""
    shared, predicted = document["budget"], document["predicted"]
    budget = "of each network its own" if shared is None else f"{count(shared)} parameters"
    columns = [
        Column("parameters", _name),
        Column("dense size", "dense_parameters", count),
    ]
    if "macs" in document:
        size = "" if shared is None else f" and at most {budget}"
        budget = f"of {macs(document['macs'])} MACs{size}"
    else:
        columns.append(Column("sparsity", lambda row: row.get("sparsity", "dense"), _sparsity))
    columns += [
        Column("dense MACs", lambda row: row.get("dense_macs", row.get("macs")), macs),
        Column("memory", "memory_bytes", lambda found: f"{found / 2**20:,.0f} MiB"),
        Column("feasible", _feasible),
    ]
    return Table(
        f"{document['study']}: budget {budget} (counting rule {document['counting']}), "
        f"{document['trials']} trials, sampler {document['sampler']}",
        columns,
        [document["base"], *document.get("opponents", []), *document["corners"]],
        _prediction(predicted["seconds"], predicted["measured_on"]) if predicted else "",
    )


def bench_table(document: Document) -> Table:
    """Return measured speeds; see `sculpt.benchmark.throughput.bench`."""
    columns = [
        Column("network", lambda row: row["role"].replace("_", " ")),
        Column("parameters", lambda row: describe_parameters(row["params"])),
        Column("phase", "phase"),
        Column("images/s", "images_per_second", count),
        Column("seconds", "seconds", "{:,.2f}".format),
    ]
    if any("ratio" in row for row in document["rows"]):
        columns.append(Column("sculpt / standard", lambda row: row.get("ratio"), "{:.2f}".format))
    note = _prediction(document["predicted"]["seconds"], document["device"])
    return Table(f"{document['study']}: speed", columns, document["rows"], note)


def _name(row: Document) -> str:
    params = describe_parameters(row["params"])
    if "opponent" in row:
        return f"{row['opponent']}: {params}"
    return params if "feasible" in row else f"base: {params}"


def _sparsity(found: float | str) -> str:
    return found if isinstance(found, str) else share(found)


def _feasible(row: Document) -> str:
    return {None: "", True: "yes"}.get(row.get("feasible"), f"no: {row.get('reason')}")


def _prediction(seconds: float, device: Document) -> str:
    machine = f"{device['name']}, {device['threads']} threads"
    return f"the whole study: about {timedelta(seconds=round(seconds))} h on {machine}"
